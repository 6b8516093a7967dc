// Package token is how a server bounds anonymous reports without learning whose
// they are. An enrolled device gets a few tokens a day, blinded: the server sees
// who asks and none of the tokens. A report spends one: the server sees that it
// made it, and not for whom. spec/token.md is the specification.
//
// The protocol is RFC 9497's partially oblivious pseudorandom function, POPRF,
// with P-384 and SHA-384 (github.com/cloudflare/circl). Why that and not blind
// RSA signatures (RFC 9474): issuer and verifier are the same server, so nobody
// else must be able to verify; one proof covers a batch; and the day is a public
// input of the function, so that one key, which devices pin, has an epoch of its
// own each day. A server can't mark devices by giving them different keys:
// every answer proves that the pinned key made it.
//
//	device                                          server, key k
//	nonces n₁…, blinds r₁…
//	B_i = r_i·H(n_i)            ── day, B₁… ──►      who asks is known
//	                            ◄─ E₁…, proof ──     E_i = 1/(k+H'(day)) · B_i
//	checks the proof, unblinds:
//	t_i = SHA-384(n_i, day, E_i/r_i)
//	                            ── day, n, t ──►     computes t from n and day; spent?
//
// What the caller must still do: the server counts batches per device and day,
// and remembers what was spent; the device spends tokens of an earlier day only,
// so that the moment of a report does not tell who asked just before.
package token

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/oprf"
	"github.com/cloudflare/circl/zk/dleq"
)

// Limits of the protocol. They stand in the format.
const (
	Batch     = 8 // tokens that a device gets for a day, all at once
	FirstDay  = 1 // a token is spent so many days after its own at the earliest
	LastDay   = 3 // and so many at the latest
	nonceSize = 32
	tagSize   = 48 // SHA-384
	pointSize = 49 // compressed P-384
	proofSize = 96
	keySize   = 48
)

// MaxToken is the limit for a token's text, in bytes.
const MaxToken = 128

var suite = oprf.SuiteP384

// info binds everything to one day.
func info(day string) []byte { return []byte("sealant report token 1 " + day) }

// Day is the UTC day of a moment: "2026-11-23".
func Day(at time.Time) string { return at.UTC().Format(time.DateOnly) }

func checkDay(day string) error {
	if t, err := time.Parse(time.DateOnly, day); err != nil || t.Format(time.DateOnly) != day {
		return fmt.Errorf("%.12q is no day", day)
	}
	return nil
}

// Usable says whether a token of a day can be spent at a moment.
func Usable(day string, now time.Time) bool {
	for back := FirstDay; back <= LastDay; back++ {
		if Day(now.AddDate(0, 0, -back)) == day {
			return true
		}
	}
	return false
}

// Key is the server's key.
type Key struct{ private *oprf.PrivateKey }

// NewKey makes a key.
func NewKey() (*Key, error) {
	k, err := oprf.GenerateKey(suite, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make token key: %w", err)
	}
	return &Key{k}, nil
}

// ParseKey reads what Key.Bytes wrote: 48 bytes.
func ParseKey(b []byte) (*Key, error) {
	k := new(oprf.PrivateKey)
	if len(b) != keySize {
		return nil, fmt.Errorf("cannot read token key: %d bytes instead of %d", len(b), keySize)
	}
	if err := k.UnmarshalBinary(suite, b); err != nil {
		return nil, fmt.Errorf("cannot read token key: %w", err)
	}
	if again, err := k.MarshalBinary(); err != nil || string(again) != string(b) {
		return nil, errors.New("cannot read token key: it is not in its only form")
	}
	return &Key{k}, nil
}

// Bytes is the secret key.
func (k *Key) Bytes() ([]byte, error) { return k.private.MarshalBinary() }

// Public is what devices pin.
func (k *Key) Public() *Public { return &Public{k.private.Public()} }

// Answer is the server's to a batch.
type Answer struct {
	Points [][]byte // as many as were asked for, in their order
	Proof  []byte   // that the key made them for the day
}

// Issue answers a batch of blinded nonces for a day. Who asks, and how often,
// the caller has checked.
func (k *Key) Issue(day string, blinded [][]byte) (Answer, error) {
	var a Answer
	fail := func(err error) (Answer, error) { return a, fmt.Errorf("cannot issue tokens: %w", err) }
	if err := checkDay(day); err != nil {
		return fail(err)
	}
	points, err := parsePoints(blinded)
	if err != nil {
		return fail(err)
	}
	e, err := oprf.NewPartialObliviousServer(suite, k.private).Evaluate(&oprf.EvaluationRequest{Elements: points}, info(day))
	if err != nil {
		return fail(err)
	}
	if a.Points, err = formatPoints(e.Elements); err != nil {
		return fail(err)
	}
	if a.Proof, err = e.Proof.MarshalBinary(); err != nil {
		return fail(err)
	}
	return a, nil
}

func parsePoints(list [][]byte) ([]group.Element, error) {
	if len(list) == 0 || len(list) > Batch {
		return nil, fmt.Errorf("%d points, 1 to %d are possible", len(list), Batch)
	}
	points := make([]group.Element, len(list))
	for i, b := range list {
		points[i] = suite.Group().NewElement()
		if len(b) != pointSize || b[0] != 2 && b[0] != 3 {
			return nil, errors.New("a point is not in its compressed form")
		}
		if err := points[i].UnmarshalBinary(b); err != nil {
			return nil, err
		}
		if points[i].IsIdentity() {
			return nil, errors.New("a point is nothing")
		}
	}
	return points, nil
}

func formatPoints(list []group.Element) ([][]byte, error) {
	all := make([][]byte, len(list))
	for i, p := range list {
		var err error
		if all[i], err = p.MarshalBinaryCompress(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Token is one token.
type Token struct {
	Day   string
	Nonce [nonceSize]byte // names it: it is spent once
	Tag   [tagSize]byte   // what only the key's holder can make of the nonce
}

// String is the token as a report carries it: the day, a dot, and nonce and tag
// in base64url without padding.
func (t Token) String() string {
	return t.Day + "." + base64.RawURLEncoding.EncodeToString(append(t.Nonce[:], t.Tag[:]...))
}

// Parse reads what String wrote.
func Parse(s string) (Token, error) {
	var t Token
	if len(s) > MaxToken {
		return t, fmt.Errorf("cannot read token: %d bytes, at most %d are possible", len(s), MaxToken)
	}
	day, text, _ := strings.Cut(s, ".")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != nonceSize+tagSize || checkDay(day) != nil {
		return t, errors.New("cannot read token: it is not a day and 80 bytes in base64url")
	}
	t.Day = day
	copy(t.Nonce[:], raw)
	copy(t.Tag[:], raw[nonceSize:])
	if t.String() != s {
		return t, errors.New("cannot read token: it is not in its only form")
	}
	return t, nil
}

// ErrForged: nobody was ever given this token.
var ErrForged = errors.New("the token was not issued by this server")

// Verify says whether the key made the token, for its day. Whether the day is
// right (Usable) and the token unspent the caller checks.
func (k *Key) Verify(t Token) error {
	if !oprf.NewPartialObliviousServer(suite, k.private).VerifyFinalize(t.Nonce[:], info(t.Day), t.Tag[:]) {
		return ErrForged
	}
	return nil
}

// Public is the server's public key.
type Public struct{ key *oprf.PublicKey }

// String is the key as devices pin it: one word of base64.
func (p *Public) String() string {
	b, err := p.key.MarshalBinary()
	if err != nil {
		return "" // a key that was read or made can be written
	}
	return base64.StdEncoding.EncodeToString(b)
}

// ParsePublic reads what String wrote, with or without a line feed at its end.
func ParsePublic(text string) (*Public, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(text, "\n"))
	if err != nil || len(b) != pointSize {
		return nil, errors.New("cannot read public token key: it is not a point in base64")
	}
	k := new(oprf.PublicKey)
	if err := k.UnmarshalBinary(suite, b); err != nil {
		return nil, fmt.Errorf("cannot read public token key: %w", err)
	}
	return &Public{k}, nil
}

// Request is a batch that a device asks for. It is kept until the answer is
// there, and secret: who has it can tell the tokens' owner.
type Request struct {
	Day     string
	Blinded [][]byte // what is sent

	public *Public
	nonces [][]byte
	blinds *oprf.FinalizeData
}

// NewRequest makes n nonces and blinds them, for a day.
func (p *Public) NewRequest(day string, n int) (*Request, error) {
	fail := func(err error) (*Request, error) { return nil, fmt.Errorf("cannot ask for tokens: %w", err) }
	if err := checkDay(day); err != nil {
		return fail(err)
	}
	if n < 1 || n > Batch {
		return fail(fmt.Errorf("%d of them, 1 to %d are possible", n, Batch))
	}
	r := &Request{Day: day, public: p}
	for range n {
		nonce := make([]byte, nonceSize)
		rand.Read(nonce)
		r.nonces = append(r.nonces, nonce)
	}
	blinds, request, err := oprf.NewPartialObliviousClient(suite, p.key).Blind(r.nonces)
	if err != nil {
		return fail(err)
	}
	r.blinds = blinds
	if r.Blinded, err = formatPoints(request.Elements); err != nil {
		return fail(err)
	}
	return r, nil
}

// Finish turns the server's answer into tokens. It fails unless the answer
// proves that the pinned key made every one of them for the day.
func (r *Request) Finish(a Answer) ([]Token, error) {
	fail := func(err error) ([]Token, error) { return nil, fmt.Errorf("cannot use the server's tokens: %w", err) }
	points, err := parsePoints(a.Points)
	if err != nil {
		return fail(err)
	}
	if len(points) != len(r.nonces) || len(a.Proof) != proofSize {
		return fail(errors.New("the answer does not fit the request"))
	}
	proof := new(dleq.Proof)
	if err := proof.UnmarshalBinary(suite.Group(), a.Proof); err != nil {
		return fail(err)
	}
	tags, err := oprf.NewPartialObliviousClient(suite, r.public.key).Finalize(r.blinds, &oprf.Evaluation{Elements: points, Proof: proof}, info(r.Day))
	if err != nil {
		return fail(err)
	}
	all := make([]Token, len(tags))
	for i, tag := range tags {
		all[i].Day = r.Day
		if copy(all[i].Nonce[:], r.nonces[i]) != nonceSize || copy(all[i].Tag[:], tag) != tagSize {
			return fail(errors.New("a tag has another size"))
		}
	}
	return all, nil
}
