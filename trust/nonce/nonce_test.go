package nonce

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func newNonces(t testing.TB) State {
	t.Helper()
	n, err := New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNonceIsAHash was made with the command
//
//	{ printf 'sealant nonce 1\0'; head -c 32 /dev/zero | tr '\0' '\1'; } | sha384sum
func TestNonceIsAHash(t *testing.T) {
	const want = "17850a662a1616f26cf36e5a240a6da9aa4957538fc352115b3607f8ab08cab3ac9b82b832559b8fd34297ced96a2acb"
	if got := Seed(bytes.Repeat([]byte{1}, 32)).Nonce(); hex.EncodeToString(got[:]) != want {
		t.Errorf("got %x, want %s", got, want)
	}
}

func TestNonceStates(t *testing.T) {
	n := newNonces(t)
	if _, ok := n.Prerolled(); ok || n.Staged() != n.Current() || n.Step() != 1 {
		t.Error("a new device has a next nonce")
	}
	if _, err := n.Confirm(); err == nil {
		t.Error("confirmed what was never prepared")
	}
	if n.Discard() != n {
		t.Error("discarding nothing changed something")
	}
	next, err := n.Next(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prerolled, ok := next.Prerolled()
	if !ok || prerolled == next.Current() || next.Current() != n.Current() || next.Staged() != prerolled || next.Step() != 2 {
		t.Error("Next must prepare another nonce and leave the current one")
	}
	if again, err := next.Next(failingReader{}); err != nil || again != next {
		t.Error("Next is not idempotent: an interrupted device would ask for a second ticket")
	}
	rolled, err := next.Confirm()
	if err != nil || rolled.Current() != prerolled || rolled.Staged() != prerolled || rolled.Step() != 3 {
		t.Errorf("Confirm: %v", err)
	}
	if _, ok := rolled.Prerolled(); ok {
		t.Error("there is a next nonce after Confirm")
	}
	if _, err := rolled.Confirm(); err == nil {
		t.Error("confirmed twice")
	}
	dropped := next.Discard()
	if dropped.Current() != n.Current() || dropped.Step() != 3 {
		t.Error("Discard changed the current nonce")
	}
	fresh, err := dropped.Next(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := fresh.Prerolled(); p == prerolled {
		t.Error("a discarded nonce came back")
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("no randomness") }

func TestNonceWithoutRandomness(t *testing.T) {
	if _, err := New(failingReader{}); err == nil {
		t.Error("a nonce without randomness")
	}
	if _, err := New(bytes.NewReader(make([]byte, len(Seed{})))); err == nil {
		t.Error("a nonce of zeros")
	}
	n := newNonces(t)
	if _, err := n.Next(io.LimitReader(rand.Reader, 31)); err == nil {
		t.Error("a next nonce of 31 bytes")
	}
	if _, err := n.Next(bytes.NewReader(n.current[:])); err == nil {
		t.Error("the same nonce twice")
	}
}

func TestNonceText(t *testing.T) {
	one := newNonces(t)
	two, err := one.Next(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []State{one, two} {
		text, err := n.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got State
		if err := got.UnmarshalText(text); err != nil || got != n {
			t.Errorf("%s came back as %+v: %v", text, got, err)
		}
		for i := range text {
			got := n
			if err := got.UnmarshalText(text[:i]); err == nil || got != n {
				t.Errorf("accepted %d of %d bytes, or changed the state", i, len(text))
			}
		}
	}
	text, _ := two.MarshalText()
	s := string(text)
	for name, bad := range map[string]string{
		"unknown field": strings.Replace(s, "{", `{"x":1,`, 1),
		"other schema":  strings.Replace(s, "nonces/1", "nonces/2", 1),
		"capitals":      strings.ToUpper(s),
		"spaces":        strings.Replace(s, ":", ": ", 1),
		"step 0":        strings.Replace(s, `"step":2`, `"step":0`, 1),
		"step twice":    strings.Replace(s, `"step":2`, `"step":2,"step":3`, 1),
		"no line end":   s[:len(s)-1],
		"two":           s + s,
		"long":          s + strings.Repeat(" ", 600),
		"equal nonces":  `{"schema":"sealant.nonces/1","step":2,"current":"` + strings.Repeat("01", 32) + `","next":"` + strings.Repeat("01", 32) + "\"}\n",
		"zero":          `{"schema":"sealant.nonces/1","step":2,"current":"` + strings.Repeat("00", 32) + "\"}\n",
		"short":         `{"schema":"sealant.nonces/1","step":2,"current":"` + strings.Repeat("01", 31) + "\"}\n",
	} {
		var got State
		if err := got.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNoncesAgainstCounter(t *testing.T) {
	n, err := NewAt(rand.Reader, 7)
	if err != nil {
		t.Fatal(err)
	}
	if n, err = n.Next(rand.Reader); err != nil || n.Step() != 8 {
		t.Fatal(n.Step(), err)
	}
	for counter, want := range map[uint64]string{6: "another device", 7: "increment", 8: "", 9: "old copy", 0: "another device", 1<<64 - 1: "old copy"} {
		increment, err := n.Against(counter)
		switch {
		case want == "" || want == "increment":
			if err != nil || increment != (want == "increment") {
				t.Errorf("counter %d: %v, %v", counter, increment, err)
			}
		case err == nil || increment || !strings.Contains(err.Error(), want):
			t.Errorf("counter %d: %v", counter, err)
		}
	}
	if _, err := NewAt(rand.Reader, 0); err == nil {
		t.Error("began at 0")
	}
}

// machine is a device reduced to what survives a power cut: the nonces and
// which ticket (by its nonce) stands in which slot.
type machine struct {
	nonces        State
	current, next [48]byte // zero: the baseline's ticket, or nothing staged
}

// boots says with which nonce the machine would come up: the staged set if its
// ticket verifies, else the current one if that verifies, else the baseline
// (zero). It is the rule of the boot helper.
func (m *machine) boots() [48]byte {
	if m.next != ([48]byte{}) && m.next == m.nonces.Staged() {
		return m.next
	}
	if m.current == m.nonces.Current() {
		return m.current
	}
	return [48]byte{}
}

// TestOldTicketsStayDead walks at random through staging, booting, confirming
// and discarding, is killed between any two writes, and keeps every ticket that
// was ever issued, as a thief with copies of all files would (all but the
// nonces, which are what the thief can't put back).
func TestOldTicketsStayDead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, err := New(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		m := machine{nonces: n}
		issued, dead := map[[48]byte]bool{}, map[[48]byte]bool{}
		writes := func(steps ...func()) {
			// A kill after any number of steps, none and all included.
			for _, s := range steps[:rapid.IntRange(0, len(steps)).Draw(t, "writes")] {
				s()
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "journeys") {
			before := m.boots()
			switch rapid.SampledFrom([]string{"stage", "confirm", "discard"}).Draw(t, "journey") {
			case "stage":
				writes(
					func() { m.nonces, _ = m.nonces.Next(rand.Reader) },
					func() { issued[m.nonces.Staged()] = true; m.next = m.nonces.Staged() },
				)
			case "confirm":
				// Only what has booted is confirmed.
				if m.next == ([48]byte{}) || m.boots() != m.next {
					break
				}
				old := m.nonces.Current()
				writes(
					func() {
						if rolled, err := m.nonces.Confirm(); err == nil {
							m.nonces = rolled
							dead[old] = true
						}
					},
					func() { m.current, m.next = m.next, [48]byte{} },
				)
				if m.boots() != before {
					t.Fatal("a kill while confirming changed what boots")
				}
			case "discard":
				if m.nonces.Staged() == m.nonces.Current() {
					break // rolled already: it is the running set
				}
				old := m.nonces.Staged()
				writes(
					func() { m.next = [48]byte{} },
					func() { m.nonces = m.nonces.Discard(); dead[old] = true },
				)
			}
			// The thief puts any two tickets into the slots.
			for nonce := range dead {
				for other := range issued {
					for _, forged := range []machine{{m.nonces, nonce, other}, {m.nonces, other, nonce}} {
						if b := forged.boots(); dead[b] {
							t.Fatal("a dead ticket booted")
						}
					}
				}
			}
			alive := 0
			for nonce := range issued {
				if nonce == m.nonces.Current() || nonce == m.nonces.Staged() {
					alive++
				}
			}
			if alive > 2 {
				t.Fatalf("%d tickets are alive", alive)
			}
		}
	})
}

func FuzzNonces(f *testing.F) {
	f.Add([]byte(`{"schema":"sealant.nonces/1","step":1,"current":"` + strings.Repeat("01", 32) + "\"}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var n State
		if n.UnmarshalText(text) != nil {
			return
		}
		if again, err := n.MarshalText(); err != nil || !bytes.Equal(again, text) {
			t.Fatalf("%s became %s", text, again)
		}
	})
}
