// Package setlog is the public log of every set that was ever authorised: a
// Merkle tree of which nothing can be taken away and nothing changed, so that a
// set which was signed for one device alone can't stay a secret.
//
// # Parties
//
// The signing service puts a set's text (Text: no device in it) into the log before
// it signs the first ticket for it, and signs the tree's head. A device that got
// a ticket looks its set up, and checks that the head is signed by the log's key,
// that it contains the set, and that it extends the head the device saw before
// (Client.Prove). Anybody can read the log and compare it
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
	// ErrLost: the log can't show what a head that it signed stands for. Its
	// writer was put back to an older state, or hides something.
	ErrLost = errors.New("the log no longer has what it once showed")
	// ErrLie: what was fetched proves nothing: it is cut, changed or about
	// something else.
	ErrLie = errors.New("the log's answer does not hold")
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
	// file that is not there gives an error that is ErrAbsent; what it says of
	// anything else that went wrong comes back to the caller as it is.
	Fetch func(path string, limit int64) ([]byte, error)
}

// Proof is what the log showed for a record.
type Proof struct {
	Tree tlog.Tree // of the head that was shown
	Head []byte    // that head with its signature; nil if none could be read
}

// Check proves that the log has the record with this text, under a head that
// extends the head seen before (the zero Tree if there was none). It returns
// the head to remember: the longer of the two.
func (c *Client) Check(text []byte, before tlog.Tree) (tlog.Tree, error) {
	p, err := c.Prove(text, before)
	if err != nil || p.Tree.N < before.N {
		return before, err // of an older head that fits, what was seen stays
	}
	return p.Tree, nil
}

// Prove does what Check does, and returns what the log showed. An error that is
// ErrFork is proven dishonesty: the proof's head contradicts the one before, and
// both should be kept. Errors that are none of ErrAbsent, ErrFork, ErrLost and
// ErrLie are those of Fetch.
func (c *Client) Prove(text []byte, before tlog.Tree) (Proof, error) {
	answer, err := c.Fetch(LookupPath(text), MaxLookup)
	if err != nil {
		return Proof{}, fmt.Errorf("cannot look the set up in the log: %w", err)
	}
	number, got, head, err := tlog.ParseRecord(answer)
	if err != nil {
		return Proof{}, fmt.Errorf("%w: %w", ErrLie, err)
	}
	if !bytes.Equal(got, text) {
		return Proof{}, fmt.Errorf("%w: it is about another set", ErrLie)
	}
	tree, err := OpenHead(head, c.Verifier)
	if err != nil {
		return Proof{}, fmt.Errorf("%w: %w", ErrLie, err)
	}
	p := Proof{tree, head}
	if number < 0 || number >= tree.N {
		return p, fmt.Errorf("%w: the record is beyond its end", ErrLie)
	}
	if err := c.Extends(before, tree); err != nil {
		return p, err
	}
	hashes, err := c.hashes(tree, func(r tlog.HashReader) ([]tlog.Hash, error) {
		return r.ReadHashes([]int64{tlog.StoredHashIndex(0, number)})
	})
	if err != nil {
		return p, fmt.Errorf("cannot prove that the log has the set: %w", err)
	}
	if hashes[0] != tlog.RecordHash(text) {
		return p, fmt.Errorf("%w: another set stands at the record's place", ErrLie)
	}
	return p, nil
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
	hashes, err := c.hashes(b, func(r tlog.HashReader) ([]tlog.Hash, error) {
		h, err := tlog.TreeHash(a.N, r)
		return []tlog.Hash{h}, err
	})
	if err != nil {
		return fmt.Errorf("cannot compare the log with what it was: %w", err)
	}
	if hashes[0] != a.Hash {
		return fmt.Errorf("%w: the head of %d records does not contain that of %d", ErrFork, b.N, a.N)
	}
	return nil
}

// hashes reads hashes of a tree from tiles. What the tlog package finds wrong
// with a tile is a lie; what could not be fetched is not.
func (c *Client) hashes(t tlog.Tree, read func(tlog.HashReader) ([]tlog.Hash, error)) ([]tlog.Hash, error) {
	from := &tiles{fetch: c.Fetch}
	list, err := read(tlog.TileHashReader(t, from))
	switch {
	case err == nil:
		return list, nil
	case from.failed != nil:
		return nil, from.failed
	}
	return nil, fmt.Errorf("%w: %w", ErrLie, err)
}

// tiles fetches tiles for the tlog package, which verifies them.
type tiles struct {
	fetch  func(path string, limit int64) ([]byte, error)
	failed error // why a tile could not be had
}

// Height implements tlog.TileReader.
func (*tiles) Height() int { return Height }

// ReadTiles implements tlog.TileReader.
func (t *tiles) ReadTiles(list []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(list))
	for i, tile := range list {
		got, err := t.fetch(strings.TrimPrefix(tile.Path(), "/"), MaxTile)
		switch {
		case errors.Is(err, ErrAbsent):
			t.failed = fmt.Errorf("%w: %s is not there", ErrLost, tile.Path())
		case err != nil:
			t.failed = err
		case len(got) != tile.W*tlog.HashSize:
			t.failed = fmt.Errorf("%w: %s has %d bytes instead of %d", ErrLie, tile.Path(), len(got), tile.W*tlog.HashSize)
		}
		if t.failed != nil {
			return nil, t.failed
		}
		data[i] = got
	}
	return data, nil
}

// SaveTiles implements tlog.TileReader; nothing is kept.
func (*tiles) SaveTiles([]tlog.Tile, [][]byte) {}
