// Package nonce keeps the nonces that a device's tickets must bear, and says when they
// change. It knows nothing of tickets, so that who only reads the state of a device
// links no cryptography of keys.
package nonce

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Seed is the secret that a nonce is made of. It stays on the device.
type Seed [32]byte

// nonceDomain separates these hashes from all others.
const nonceDomain = "sealant nonce 1\x00"

// Nonce is what is published of a seed: SHA-384 of "sealant nonce 1", a zero
// byte and the seed.
func (s Seed) Nonce() [48]byte {
	return sha512.Sum384(append([]byte(nonceDomain), s[:]...))
}

// State is a device's nonces: the current one, which the ticket of the
// running set must bear, and perhaps a prerolled next one, for which the
// ticket of a staged set was made. It is a pure state machine; the device's
// store writes the new state down before anything relies on it.
//
//	           Next                    Confirm
//	current ─────────► current, next ───────────► next as current
//	     ▲                   │
//	     └───────────────────┘
//	            Discard
//
// A ticket is valid while its nonce is one of the two. No seed comes back:
// what Confirm replaced and what Discard dropped was random and is gone, and
// with it every ticket made for it. So at any moment the running set and the
// staged one are all that can boot, and after Confirm only the latter.
//
// The baseline's ticket has no nonce. When the baseline itself is staged,
// Next and Confirm still take place: they end the ticket of what was removed.
//
// Step counts the changes. A machine with a monotonic counter compares the
// two, so that an old copy of the state isn't taken for the present.
type State struct {
	step    uint64
	current Seed
	next    Seed // zero: none
}

// New begins with a random current nonce and no next one, at step 1.
func New(rand io.Reader) (State, error) { return NewAt(rand, 1) }

// NewAt begins at the step that a counter shows, which isn't 0.
func NewAt(rand io.Reader, step uint64) (State, error) {
	s, err := newSeed(rand)
	if err == nil && step == 0 {
		err = errors.New("cannot make nonce: the counter shows 0")
	}
	if err != nil {
		return State{}, err
	}
	return State{step: step, current: s}, nil
}

func newSeed(rand io.Reader) (s Seed, err error) {
	if _, err = io.ReadFull(rand, s[:]); err != nil {
		return s, fmt.Errorf("cannot make nonce: %w", err)
	}
	if s == (Seed{}) {
		return s, errors.New("cannot make nonce: the source of randomness gives zeros")
	}
	return s, nil
}

// Current is the nonce in force.
func (n State) Current() [48]byte { return n.current.Nonce() }

// Prerolled is the next nonce, if there is one.
func (n State) Prerolled() (nonce [48]byte, ok bool) {
	if n.next == (Seed{}) {
		return nonce, false
	}
	return n.next.Nonce(), true
}

// Staged is the nonce that the ticket of a staged set must bear. That is the
// prerolled one, and once the nonce has rolled the current one: Confirm comes
// before the staged set takes the running one's place in the store, and a
// device that was killed between the two still boots the staged set, and can't
// boot the old one.
func (n State) Staged() [48]byte {
	if nonce, ok := n.Prerolled(); ok {
		return nonce
	}
	return n.Current()
}

// Step counts the changes of the state.
func (n State) Step() uint64 { return n.step }

// Next prerolls the next nonce. If there is one already it stays the same, so
// that a device that was interrupted asks for the same ticket again.
func (n State) Next(rand io.Reader) (State, error) {
	if n.next != (Seed{}) {
		return n, nil
	}
	s, err := newSeed(rand)
	if err != nil {
		return n, err
	}
	if s == n.current {
		return n, errors.New("cannot make nonce: the source of randomness repeats itself")
	}
	return State{step: n.step + 1, current: n.current, next: s}, nil
}

// Confirm puts the next nonce in force; the current one is gone. Without a
// next nonce there is nothing to confirm, and the state stays.
func (n State) Confirm() (State, error) {
	if n.next == (Seed{}) {
		return n, errors.New("cannot roll the nonce: no next nonce was prepared")
	}
	return State{step: n.step + 1, current: n.next}, nil
}

// Discard drops the next nonce, and the ticket made for it. Without one the
// state stays as it is.
func (n State) Discard() State {
	if n.next == (Seed{}) {
		return n
	}
	return State{step: n.step + 1, current: n.current}
}

// nonceFile is how the state is written down.
type nonceFile struct {
	Schema  string `json:"schema"`
	Step    uint64 `json:"step"`
	Current string `json:"current"`
	Next    string `json:"next,omitempty"`
}

const nonceSchema = "sealant.nonces/1"

// MarshalText writes the state, secrets included, as a small JSON document.
func (n State) MarshalText() ([]byte, error) {
	f := nonceFile{Schema: nonceSchema, Step: n.step, Current: hex.EncodeToString(n.current[:])}
	if n.next != (Seed{}) {
		f.Next = hex.EncodeToString(n.next[:])
	}
	text, err := json.Marshal(f)
	return append(text, '\n'), err
}

// UnmarshalText reads what MarshalText wrote, and nothing else.
func (n *State) UnmarshalText(text []byte) error {
	const maxText = 512
	if len(text) > maxText {
		return fmt.Errorf("cannot read nonces: %d bytes, at most %d are possible", len(text), maxText)
	}
	var f nonceFile
	if err := json.Unmarshal(text, &f); err != nil {
		return fmt.Errorf("cannot read nonces: %w", err)
	}
	got := State{step: f.Step}
	if f.Schema != nonceSchema || !got.current.read(f.Current) || f.Next != "" && !got.next.read(f.Next) || f.Step == 0 || got.current == got.next {
		return errors.New("cannot read nonces: a field is missing or malformed")
	}
	again, err := got.MarshalText()
	if err != nil || !bytes.Equal(again, text) {
		return errors.New("cannot read nonces: they are not in their only form")
	}
	*n = got
	return nil
}

func (s *Seed) read(text string) bool {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(s) {
		return false
	}
	copy(s[:], b)
	return *s != Seed{}
}

// Against compares the state with a counter that can't go back and that counts
// every change after it was written down. It says whether the device was
// killed between the two (then the counter must be incremented now), or that
// the state is an old copy and must not be used.
func (n State) Against(counter uint64) (increment bool, err error) {
	switch {
	case counter == n.step:
		return false, nil
	case counter+1 == n.step:
		return true, nil
	case counter > n.step:
		return false, fmt.Errorf("cannot use nonces: they are of step %d, the counter says %d: an old copy was put back", n.step, counter)
	default:
		return false, fmt.Errorf("cannot use nonces: they are of step %d, the counter says %d: it is another device's", n.step, counter)
	}
}
