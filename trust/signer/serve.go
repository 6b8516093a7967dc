package signer

import (
	"bufio"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Serve is the other side of the protocol, for programs that hold keys. It
// answers requests from r on w until r ends. Find returns a key by its name;
// its errors become answers, with the code of a *Refusal if it is one. A line
// that is no request ends the conversation with an error.
func Serve(r io.Reader, w io.Writer, find func(name string) (crypto.Signer, error)) error {
	in := bufio.NewReaderSize(r, 4096)
	for {
		line, err := readLine(in)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read request: %w", err)
		}
		var q request
		if err := strict(line, &q); err != nil {
			return fmt.Errorf("cannot read request: %w", err)
		}
		if q.Signer != protocol {
			return fmt.Errorf("cannot serve version %d of the signer protocol, only %d", q.Signer, protocol)
		}
		a, err := serve(q, find)
		if err != nil {
			a = answer{Error: printable(err.Error()), Code: CodeFailed}
			var refusal *Refusal
			if errors.As(err, &refusal) {
				a.Code = refusal.Code
			}
		}
		a.ID = q.ID
		line, err = json.Marshal(a)
		if err != nil {
			return fmt.Errorf("cannot write answer: %w", err)
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("cannot write answer: %w", err)
		}
	}
}

func serve(q request, find func(name string) (crypto.Signer, error)) (answer, error) {
	key, err := find(q.Key)
	if err != nil {
		return answer{}, err
	}
	switch q.Op {
	case opPublicKey:
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		return answer{Public: public}, err
	case opSign:
		h, ok := hashes[q.Hash]
		_, edwards := key.Public().(ed25519.PublicKey)
		if !ok || edwards != (h == 0) {
			return answer{}, &Refusal{CodeUnsupported, fmt.Sprintf("the key can't sign with hash %q", q.Hash)}
		}
		if h != 0 && len(q.Data) != h.Size() || len(q.Data) > MaxMessage {
			return answer{}, &Refusal{CodeUnsupported, fmt.Sprintf("%d bytes can't be signed with hash %q", len(q.Data), q.Hash)}
		}
		signature, err := key.Sign(rand.Reader, q.Data, h)
		return answer{Signature: signature}, err
	default:
		return answer{}, &Refusal{CodeUnsupported, fmt.Sprintf("there is no operation %q", q.Op)}
	}
}
