package tpm

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/nonce"
)

// machine is a pretend machine with a TPM, whose state lies in a folder.
type machine struct {
	transport.TPM
	dir string
	cmd *exec.Cmd
}

// newMachine makes a machine; boot starts its TPM.
func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir()}
	m.boot(t)
	t.Cleanup(func() { m.off() })
	return m
}

func (m *machine) boot(t *testing.T) {
	t.Helper()
	socket := filepath.Join(m.dir, "s")
	_ = os.Remove(socket)
	path, err := exec.LookPath("swtpm")
	if err != nil {
		t.Fatalf("this test needs Debian's swtpm: %v", err)
	}
	m.cmd = exec.Command(path, "socket", "--tpm2", "--tpmstate", "dir="+m.dir, "--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+filepath.Join(m.dir, "c"), "--flags", "not-need-init,startup-clear")
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		// The socket may be there and not listen yet, which Open doesn't find out.
		var c net.Conn
		if c, err = net.Dial("unix", socket); err == nil {
			_ = c.Close()
			if m.TPM, err = linuxudstpm.Open(socket); err != nil {
				t.Fatal(err)
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the TPM doesn't come up: %v", err)
}

func (m *machine) off() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
}

// empty fails if anything was left in the TPM.
func (m *machine) empty(t *testing.T) {
	t.Helper()
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: 0x80000000, PropertyCount: 10}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	handles, err := r.CapabilityData.Data.Handles()
	if err != nil || len(handles.Handle) != 0 {
		t.Errorf("left in the TPM: %v, %v", handles, err)
	}
}

func newKey(t *testing.T, m *machine) *identity.TPMKey {
	t.Helper()
	k, err := NewKey(m)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKey(t *testing.T) {
	m := newMachine(t)
	text, err := identity.MarshalTPMKey(newKey(t, m))
	if err != nil {
		t.Fatal(err)
	}
	// The file is all that is kept; the machine is switched off and on.
	m.off()
	m.boot(t)
	k, err := identity.ParseTPMKey(text)
	if err != nil {
		t.Fatal(err)
	}
	public, err := identity.PublicOf(text)
	if err != nil || !public.Equal(k.Public) {
		t.Errorf("public part: %v", err)
	}
	signer := Signer(m, k)
	now := time.Now()
	for range 3 {
		s, err := identity.SignRequest(signer, "POST", "/v1/tickets", []byte("{}"), now)
		if err != nil {
			t.Fatal(err)
		}
		if err := identity.VerifyRequest(k.Public, s, "POST", "/v1/tickets", []byte("{}"), now, identity.Skew); err != nil {
			t.Error(err)
		}
	}
	m.empty(t)
	for _, test := range []struct {
		data []byte
		opts crypto.SignerOpts
	}{{make([]byte, 48), crypto.SHA384}, {make([]byte, 31), crypto.SHA256}, {make([]byte, 32), crypto.Hash(0)}} {
		if _, err := signer.Sign(nil, test.data, test.opts); err == nil {
			t.Errorf("signed %d bytes with hash %v", len(test.data), test.opts)
		}
	}
	if one, two := newKey(t, m), newKey(t, m); one.Public.Equal(two.Public) {
		t.Error("two keys are the same")
	}
	m.empty(t)
}

// TestKeyOfAnotherMachine: a copied file is worth nothing, and neither is a
// changed one.
func TestKeyOfAnotherMachine(t *testing.T) {
	m, clone := newMachine(t), newMachine(t)
	k := newKey(t, m)
	digest := sha256.Sum256([]byte("x"))
	if _, err := Signer(clone, k).Sign(nil, digest[:], crypto.SHA256); err == nil || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("another machine: %v", err)
	}
	for i := range k.PrivateArea {
		changed := *k
		changed.PrivateArea = bytes.Clone(k.PrivateArea)
		changed.PrivateArea[i] ^= 1
		if _, err := Signer(m, &changed).Sign(nil, digest[:], crypto.SHA256); err == nil {
			t.Errorf("byte %d of the private part changed", i)
		}
	}
	// Somebody else's public part, to have another id.
	mixed := *k
	mixed.Public, mixed.PublicArea = newKey(t, m).Public, newKey(t, m).PublicArea
	if _, err := Signer(m, &mixed).Sign(nil, digest[:], crypto.SHA256); err == nil {
		t.Error("a key with another's public part")
	}
	clone.empty(t)
	m.empty(t)
}

func TestEnrolment(t *testing.T) {
	m, other := newMachine(t), newMachine(t)
	k := newKey(t, m)
	ek, err := ReadEndorsement(m)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ReadEndorsement(m)
	if err != nil || !bytes.Equal(ek.Area, again.Area) {
		t.Errorf("the endorsement key changed: %v", err)
	}
	otherEK, err := ReadEndorsement(other)
	if err != nil {
		t.Fatal(err)
	}
	id, err1 := ek.ID()
	otherID, err2 := otherEK.ID()
	if err1 != nil || err2 != nil || id == otherID {
		t.Errorf("ids: %x, %x, %v, %v", id, otherID, err1, err2)
	}

	secret := bytes.Repeat([]byte{7}, SecretSize)
	c, err := Challenge(rand.Reader, ek, k.PublicArea, secret)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Answer(m, k, ek, c); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("answer: %x, %v", got, err)
	}
	m.empty(t)
	// Only this TPM, only this key.
	if _, err := Answer(m, newKey(t, m), ek, c); err == nil {
		t.Error("answered for another key")
	}
	if _, err := Answer(other, newKey(t, other), ek, c); err == nil {
		t.Error("another TPM answered")
	}
	if c, err := Challenge(rand.Reader, otherEK, k.PublicArea, secret); err != nil {
		t.Error(err)
	} else if _, err := Answer(m, k, ek, c); err == nil {
		t.Error("answered a challenge to another TPM")
	}
	for i := range c.Object {
		changed := Credential{bytes.Clone(c.Object), c.Secret}
		changed.Object[i] ^= 1
		if _, err := Answer(m, k, ek, changed); err == nil {
			t.Errorf("byte %d of the challenge changed", i)
		}
	}
	m.empty(t)

	// A software key that pretends to be in a TPM has another public area.
	loose := bytes.Clone(k.PublicArea)
	loose[9] &^= 1 << 1 // fixedTPM
	srk := tpm2.Marshal(tpm2.New2B(tpm2.ECCSRKTemplate))
	for name, err := range map[string]error{
		"a key that may leave":      second(Challenge(rand.Reader, ek, loose, secret)),
		"a storage key":             second(Challenge(rand.Reader, ek, srk, secret)),
		"no key":                    second(Challenge(rand.Reader, ek, nil, secret)),
		"an endorsement of another": second(Challenge(rand.Reader, Endorsement{Area: k.PublicArea}, k.PublicArea, secret)),
		"no endorsement":            second(Challenge(rand.Reader, Endorsement{}, k.PublicArea, secret)),
		"a long endorsement":        second(Challenge(rand.Reader, Endorsement{Area: make([]byte, 2000)}, k.PublicArea, secret)),
		"endorsement and more":      second(Challenge(rand.Reader, Endorsement{Area: append(bytes.Clone(ek.Area), 0)}, k.PublicArea, secret)),
		"a short secret":            second(Challenge(rand.Reader, ek, k.PublicArea, secret[1:])),
		"a long challenge":          second(Answer(m, k, ek, Credential{make([]byte, 600), nil})),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := (Endorsement{Area: k.PublicArea}).ID(); err == nil {
		t.Error("a device key is no endorsement key")
	}
}

func second[T any](_ T, err error) error { return err }

func TestCounter(t *testing.T) {
	m := newMachine(t)
	if _, err := OpenCounter(m); !errors.Is(err, ErrNoCounter) {
		t.Errorf("before it is made: %v", err)
	}
	c, first, err := NewCounter(m)
	if err != nil || first == 0 {
		t.Fatal(first, err)
	}
	if _, _, err := NewCounter(m); err == nil {
		t.Error("made twice")
	}
	n, err := nonce.NewAt(rand.Reader, first)
	if err != nil {
		t.Fatal(err)
	}
	old, value := n, first
	for range 3 {
		if n, err = n.Next(rand.Reader); err != nil {
			t.Fatal(err)
		}
		// Written down, but the device is killed before it counts.
		m.off()
		m.boot(t)
		if c, err = OpenCounter(m); err != nil {
			t.Fatal(err)
		}
		if value, err = c.Read(); err != nil {
			t.Fatal(err)
		}
		increment, err := n.Against(value)
		if err != nil || !increment {
			t.Fatalf("after a kill: %v, %v", increment, err)
		}
		if value, err = c.Increment(); err != nil {
			t.Fatal(err)
		}
		if increment, err := n.Against(value); err != nil || increment {
			t.Fatalf("after counting: %v, %v", increment, err)
		}
		n = n.Discard()
		if value, err = c.Increment(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := old.Against(value); err == nil {
		t.Error("an old copy of the nonces was accepted")
	}
	// The owner deletes the counter and makes it again: it doesn't go back.
	public := tpm2.TPMHandle(CounterIndex)
	if _, err := (tpm2.NVUndefineSpace{AuthHandle: tpm2.TPMRHOwner, NVIndex: tpm2.NamedHandle{Handle: public, Name: c.name}}).Execute(m); err != nil {
		t.Fatal(err)
	}
	if _, again, err := NewCounter(m); err != nil || again <= value {
		t.Errorf("made anew it shows %d after %d, %v", again, value, err)
	}
	m.empty(t)
}

// TestIndexOfAnotherKind: somebody put an ordinary index, which can be written
// at will, in the counter's place.
func TestIndexOfAnotherKind(t *testing.T) {
	m := newMachine(t)
	ordinary := counterPublic
	ordinary.Attributes.NT = tpm2.TPMNTOrdinary
	if _, err := (tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(ordinary)}).Execute(m); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCounter(m); err == nil {
		t.Error("used an ordinary index as a counter")
	}
}
