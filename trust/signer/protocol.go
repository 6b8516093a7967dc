package signer

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// The signer protocol lets a key live in another program. The caller starts
// the program and talks to it over its standard input and output, one JSON
// object a line, an answer to each request before the next:
//
//	→ {"signer":1,"id":1,"op":"public-key","key":"ticket-root"}
//	← {"id":1,"public":"base64 of SubjectPublicKeyInfo"}
//	→ {"signer":1,"id":2,"op":"sign","key":"ticket-root","hash":"sha384","data":"base64 of the digest"}
//	← {"id":2,"signature":"base64"}
//	→ {"signer":1,"id":3,"op":"sign","key":"nobody","hash":"sha384","data":"…"}
//	← {"id":3,"error":"there is no key nobody in the token","code":"unknown-key"}
//
// Hash is sha256, sha384, sha512 with a digest as data, or none with the whole
// message, which is how Ed25519 signs. Signatures are ASN.1 for ECDSA, PKCS #1
// v1.5 for RSA, 64 bytes for Ed25519. The program ends when its input does.
// What it writes to standard error is for people.
const (
	protocol   = 1
	MaxLine    = 1 << 20   // bytes of a request or an answer, line feed included
	MaxMessage = 512 << 10 // bytes of a message that is signed whole
	maxError   = 1024      // bytes of an error that is shown
)

type request struct {
	Signer int    `json:"signer"`
	ID     uint64 `json:"id"`
	Op     string `json:"op"`
	Key    string `json:"key"`
	Hash   string `json:"hash,omitempty"`
	Data   []byte `json:"data,omitempty"`
}

type answer struct {
	ID        uint64 `json:"id"`
	Public    []byte `json:"public,omitempty"`
	Signature []byte `json:"signature,omitempty"`
	Error     string `json:"error,omitempty"`
	Code      string `json:"code,omitempty"`
}

const (
	opPublicKey = "public-key"
	opSign      = "sign"
)

var hashes = map[string]crypto.Hash{"none": 0, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

func hashName(h crypto.Hash) (string, bool) {
	for name, other := range hashes {
		if h == other {
			return name, true
		}
	}
	return "", false
}

// Codes of refusals, the same for every program.
const (
	CodeUnknownKey  = "unknown-key" // there is no such key
	CodeLocked      = "locked"      // a PIN, a touch or an unlocking is missing
	CodeUnsupported = "unsupported" // the key can't sign this way
	CodeFailed      = "failed"      // anything else
)

// Refusal is a program's answer that it can't or won't do it.
type Refusal struct {
	Code string // one of the Code constants; unknown ones are CodeFailed
	Text string // for a person
}

func (r *Refusal) Error() string { return r.Text }

// Client talks to one program. It can be used by several goroutines, whose
// requests wait for each other.
type Client struct {
	mu     sync.Mutex
	w      io.Writer
	r      *bufio.Reader
	id     uint64
	broken error
}

// NewClient begins to talk over rw, which is connected to the program's
// standard input and output. It sends nothing yet. Closing rw is the caller's
// task, and is what ends a request that hangs.
func NewClient(rw io.ReadWriter) *Client {
	return &Client{w: rw, r: bufio.NewReaderSize(rw, 4096)}
}

// ask sends a request and reads its answer. After an error that isn't a
// Refusal the two sides may no longer agree on where they are, so every later
// request fails with the same error.
func (c *Client) ask(q request) (answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return answer{}, c.broken
	}
	c.id++
	q.Signer, q.ID = protocol, c.id
	a, err := c.exchange(q)
	if err != nil {
		c.broken = fmt.Errorf("the signer program does not work: %w", err)
		return answer{}, c.broken
	}
	if a.Error == "" {
		return a, nil
	}
	code := a.Code
	switch code {
	case CodeUnknownKey, CodeLocked, CodeUnsupported:
	default:
		code = CodeFailed
	}
	return answer{}, &Refusal{code, printable(a.Error)}
}

func (c *Client) exchange(q request) (answer, error) {
	line, err := json.Marshal(q)
	if err != nil {
		return answer{}, err
	}
	if len(line)+1 > MaxLine {
		return answer{}, fmt.Errorf("a request of %d bytes, at most %d are possible", len(line), MaxLine)
	}
	if _, err := c.w.Write(append(line, '\n')); err != nil {
		return answer{}, err
	}
	line, err = readLine(c.r)
	if err != nil {
		if err == io.EOF {
			err = errors.New("it ended without an answer")
		}
		return answer{}, err
	}
	var a answer
	if err := strict(line, &a); err != nil {
		return answer{}, fmt.Errorf("its answer is malformed: %w", err)
	}
	if a.ID != q.ID {
		return answer{}, fmt.Errorf("it answered request %d instead of %d", a.ID, q.ID)
	}
	given := 0
	for _, there := range []bool{len(a.Public) > 0, len(a.Signature) > 0, a.Error != ""} {
		if there {
			given++
		}
	}
	if given != 1 || a.Error == "" && (q.Op == opSign) != (len(a.Signature) > 0) || a.Code != "" && a.Error == "" {
		return answer{}, errors.New("its answer doesn't fit the request")
	}
	return a, nil
}

// readLine reads up to a line feed, MaxLine bytes at most.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > MaxLine {
			return nil, fmt.Errorf("a line is longer than %d bytes", MaxLine)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case err == io.EOF && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != bufio.ErrBufferFull:
			return nil, err
		}
	}
}

// strict decodes one JSON document without unknown fields.
func strict(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is something after the document")
	}
	return nil
}

func printable(s string) string {
	if len(s) > maxError {
		s = s[:maxError]
	}
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return ' '
		}
		return r
	}, []byte(s)))
}

// Key returns the key with this name in the program. Its public key is asked
// for once; every signature is verified with it before it is handed out.
func (c *Client) Key(name string) (crypto.Signer, error) {
	a, err := c.ask(request{Op: opPublicKey, Key: name})
	if err != nil {
		return nil, fmt.Errorf("cannot use key %s: %w", name, err)
	}
	public, err := x509.ParsePKIXPublicKey(a.Public)
	if err != nil {
		return nil, fmt.Errorf("cannot use key %s: the signer program's public key: %w", name, err)
	}
	switch public.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey, *rsa.PublicKey:
	default:
		return nil, fmt.Errorf("cannot use key %s: keys of type %T can't sign here", name, public)
	}
	return &remote{c, name, public}, nil
}

// remote is a key in another program.
type remote struct {
	client *Client
	name   string
	public crypto.PublicKey
}

func (k *remote) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. The program has its own randomness.
func (k *remote) Sign(_ io.Reader, data []byte, opts crypto.SignerOpts) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("cannot sign with key %s: %w", k.name, err)
	}
	h := opts.HashFunc()
	name, ok := hashName(h)
	_, pss := opts.(*rsa.PSSOptions)
	_, edwards := k.public.(ed25519.PublicKey)
	switch {
	case !ok || pss || edwards != (h == 0):
		return fail(fmt.Errorf("a key of type %T can't sign this way", k.public))
	case h != 0 && len(data) != h.Size():
		return fail(fmt.Errorf("a digest of %d bytes instead of %d", len(data), h.Size()))
	case len(data) > MaxMessage:
		return fail(fmt.Errorf("a message of %d bytes, at most %d are possible", len(data), MaxMessage))
	}
	a, err := k.client.ask(request{Op: opSign, Key: k.name, Hash: name, Data: data})
	if err != nil {
		return fail(err)
	}
	if !verifies(k.public, h, data, a.Signature) {
		return fail(errors.New("the signer program gave a wrong signature"))
	}
	return a.Signature, nil
}

func verifies(public crypto.PublicKey, h crypto.Hash, data, signature []byte) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, data, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(k, data, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, h, data, signature) == nil
	}
	return false
}
