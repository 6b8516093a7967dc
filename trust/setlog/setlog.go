// Package setlog is the public log of every set that was ever authorised: a
// Merkle tree of which nothing can be taken away and nothing changed, so that a
// set which was signed for one device alone can't stay a secret.
//
// # Parties
//
// The signing service puts a set's text (spec/api.md: no device in it) into the
// log before it signs the first ticket for it, and signs the tree's head. A
// device that got a ticket looks its set up, and checks that the head is signed
// by the log's key, that it contains the set, and that it extends the head the
// device saw before (Client.Check). Anybody can read the log and compare it
// with the catalog: a set in the log that the publisher never published means
// a stolen signing leaf; two heads that don't extend each other (ErrFork) are
// the proof that the log lies.
//
// # Bytes
//
// Everything is as in Go's checksum database (golang.org/x/mod/sumdb, whose
// packages note and tlog do the work). Below the log's address stand
//
//	latest            the newest head
//	lookup/<digest>   a record by the SHA-384 of its text: its number, its text,
//	                  a blank line, and the newest head
//	tile/8/<L>/<N>    the tree's hashes, in tiles of height 8; …data/<N> records
//
// A head is a note: three lines ("go.sum database tree", the number of records,
// the root hash in base64), a blank line, and a signature by an Ed25519 key
// whose name and hash stand beside it. A verifier key is one line of text.
// The specification is spec/setlog.md.
//
// # What the caller must still check
//
// That the record's text is the set it was authorised for; where it keeps the
// head it saw last, which must not go back.
package setlog

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Height of the tiles in which the tree's hashes are served.
const Height = 8

// Limits, in bytes.
const (
	MaxHead   = 4 << 10
	MaxRecord = 64 << 10
	MaxLookup = MaxHead + MaxRecord
	MaxTile   = tlog.HashSize << Height
)

// Failures that mean more than a broken answer.
var (
	// ErrFork: two heads with the log's signature contradict each other.
	ErrFork = errors.New("the log shows different histories to different readers")
	// ErrAbsent: the log does not have the record.
	ErrAbsent = errors.New("the log does not have this set")
)

// Signer is a log's name with its key.
type Signer struct {
	name string
	key  crypto.Signer
	hash uint32
}

// NewSigner gives an Ed25519 key the log's name: letters, digits and marks
// without spaces or '+'.
func NewSigner(name string, key crypto.Signer) (*Signer, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("cannot sign the log: its key is not Ed25519")
	}
	text, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return nil, fmt.Errorf("cannot sign the log: %w", err)
	}
	v, err := note.NewVerifier(text)
	if err != nil {
		return nil, fmt.Errorf("cannot sign the log: %q can't be its name: %w", name, err)
	}
	return &Signer{name: name, key: key, hash: v.KeyHash()}, nil
}

// Name implements note.Signer.
func (s *Signer) Name() string { return s.name }

// KeyHash implements note.Signer.
func (s *Signer) KeyHash() uint32 { return s.hash }

// Sign implements note.Signer.
func (s *Signer) Sign(msg []byte) ([]byte, error) {
	return s.key.Sign(rand.Reader, msg, crypto.Hash(0))
}

// Key is the verifier key: one line that readers pin.
func (s *Signer) Key() string {
	text, err := note.NewEd25519VerifierKey(s.name, s.key.Public().(ed25519.PublicKey))
	if err != nil {
		return "" // NewSigner has made one
	}
	return text
}

// SignHead signs a tree's head.
func (s *Signer) SignHead(t tlog.Tree) ([]byte, error) {
	return note.Sign(&note.Note{Text: string(tlog.FormatTree(t))}, s)
}

// OpenHead verifies a head and reads it.
func OpenHead(head []byte, v note.Verifier) (tlog.Tree, error) {
	if len(head) > MaxHead {
		return tlog.Tree{}, fmt.Errorf("cannot read the log's head: %d bytes, at most %d are possible", len(head), MaxHead)
	}
	n, err := note.Open(head, note.VerifierList(v))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("cannot trust the log's head: %w", err)
	}
	t, err := tlog.ParseTree([]byte(n.Text))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("cannot read the log's head: %w", err)
	}
	if string(tlog.FormatTree(t)) != n.Text {
		return tlog.Tree{}, errors.New("cannot read the log's head: it is not in its only form")
	}
	return t, nil
}

// FormatLookup writes the answer to a lookup.
func FormatLookup(number int64, text, head []byte) ([]byte, error) {
	record, err := tlog.FormatRecord(number, text)
	if err != nil {
		return nil, fmt.Errorf("cannot write the log's record: %w", err)
	}
	return append(record, head...), nil
}

// LookupPath is where a record is looked up: the path below the log's address.
func LookupPath(text []byte) string {
	sum := sha512.Sum384(text)
	return "lookup/" + hex.EncodeToString(sum[:])
}

// Client reads a log that it does not trust.
type Client struct {
	Verifier note.Verifier
	// Fetch reads a file below the log's address, at most limit bytes of it. A
	// file that is not there gives an error that is ErrAbsent.
	Fetch func(path string, limit int64) ([]byte, error)
}

// Check proves that the log has the record with this text, under a head that
// extends the head seen before (the zero Tree if there was none). It returns
// the head to remember. ErrFork is proven dishonesty; both heads should be kept.
func (c *Client) Check(text []byte, before tlog.Tree) (tlog.Tree, error) {
	answer, err := c.Fetch(LookupPath(text), MaxLookup)
	if err != nil {
		return before, fmt.Errorf("cannot look the set up in the log: %w", err)
	}
	number, got, head, err := tlog.ParseRecord(answer)
	if err != nil {
		return before, fmt.Errorf("cannot read the log's answer: %w", err)
	}
	if !bytes.Equal(got, text) {
		return before, errors.New("cannot accept the log's answer: it is about another set")
	}
	tree, err := OpenHead(head, c.Verifier)
	if err != nil {
		return before, err
	}
	if number < 0 || number >= tree.N {
		return before, errors.New("cannot accept the log's answer: the record is beyond its end")
	}
	if err := c.Extends(before, tree); err != nil {
		return before, err
	}
	hashes, err := c.reader(tree).ReadHashes([]int64{tlog.StoredHashIndex(0, number)})
	if err != nil {
		return before, fmt.Errorf("cannot prove that the log has the set: %w", err)
	}
	if hashes[0] != tlog.RecordHash(text) {
		return before, fmt.Errorf("cannot accept the log's answer: %w", ErrAbsent)
	}
	if tree.N < before.N {
		return before, nil // an older head that fits: what was seen stays
	}
	return tree, nil
}

// Extends proves that of two heads the longer contains all of the shorter.
func (c *Client) Extends(a, b tlog.Tree) error {
	if a.N > b.N {
		a, b = b, a
	}
	if a.N == 0 {
		return nil
	}
	if a.N == b.N {
		if a.Hash != b.Hash {
			return fmt.Errorf("%w: two heads of %d records", ErrFork, a.N)
		}
		return nil
	}
	hash, err := tlog.TreeHash(a.N, c.reader(b))
	if err != nil {
		return fmt.Errorf("cannot compare the log with what it was: %w", err)
	}
	if hash != a.Hash {
		return fmt.Errorf("%w: the head of %d records does not contain that of %d", ErrFork, b.N, a.N)
	}
	return nil
}

func (c *Client) reader(t tlog.Tree) tlog.HashReader { return tlog.TileHashReader(t, (*tiles)(c)) }

// tiles fetches tiles for the tlog package, which verifies them.
type tiles Client

// Height implements tlog.TileReader.
func (*tiles) Height() int { return Height }

// ReadTiles implements tlog.TileReader.
func (t *tiles) ReadTiles(list []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(list))
	for i, tile := range list {
		got, err := t.Fetch(strings.TrimPrefix(tile.Path(), "/"), MaxTile)
		if err != nil {
			return nil, err
		}
		if len(got) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes instead of %d", tile.Path(), len(got), tile.W*tlog.HashSize)
		}
		data[i] = got
	}
	return data, nil
}

// SaveTiles implements tlog.TileReader; nothing is kept.
func (*tiles) SaveTiles([]tlog.Tile, [][]byte) {}
