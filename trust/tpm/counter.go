package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// CounterIndex is where the counter lies among the TPM's NV indexes: in the
// range that the owner may define.
const CounterIndex = 0x01805EA1

// counterPublic describes the index. Everybody may read and count; nobody can
// count down. That the owner may delete it does not help: a counter that is
// made anew begins above the highest value that any counter of the TPM ever had.
var counterPublic = tpm2.TPMSNVPublic{
	NVIndex: CounterIndex,
	NameAlg: tpm2.TPMAlgSHA256,
	Attributes: tpm2.TPMANV{
		AuthRead: true, AuthWrite: true, OwnerRead: true, OwnerWrite: true, NoDA: true, NT: tpm2.TPMNTCounter,
	},
	DataSize: 8,
}

// Counter is the TPM's counter of this device's changes.
type Counter struct {
	tpm  transport.TPM
	name tpm2.TPM2BName
}

// ErrNoCounter means that the counter was not made yet, or was deleted.
var ErrNoCounter = errors.New("the TPM has no counter of this device")

// NewCounter makes the counter and returns its first value.
func NewCounter(t transport.TPM) (*Counter, uint64, error) {
	_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(counterPublic)}.Execute(t)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot make counter in the TPM: %w", err)
	}
	// Its value exists only once it has counted.
	c, err := counter(t)
	if err != nil {
		return nil, 0, err
	}
	n, err := c.Increment()
	return c, n, err
}

// OpenCounter finds the counter that NewCounter made.
func OpenCounter(t transport.TPM) (*Counter, error) { return counter(t) }

// counter reads the index's public part: an index of another kind in this
// place is none of ours.
func counter(t transport.TPM) (*Counter, error) {
	r, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(CounterIndex)}.Execute(t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, fmt.Errorf("cannot use counter: %w", ErrNoCounter)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use counter: %w", err)
	}
	public, err := r.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("cannot use counter: %w", err)
	}
	if public.Attributes.NT != tpm2.TPMNTCounter || public.DataSize != 8 || !public.Attributes.AuthRead || !public.Attributes.AuthWrite {
		return nil, fmt.Errorf("cannot use counter: the TPM's index %#x is something else", CounterIndex)
	}
	return &Counter{t, r.NVName}, nil
}

func (c *Counter) handle() tpm2.NamedHandle {
	return tpm2.NamedHandle{Handle: CounterIndex, Name: c.name}
}

func (c *Counter) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: CounterIndex, Name: c.name, Auth: tpm2.PasswordAuth(nil)}
}

// Increment counts one up and returns the new value.
func (c *Counter) Increment() (uint64, error) {
	if _, err := (tpm2.NVIncrement{AuthHandle: c.auth(), NVIndex: c.handle()}).Execute(c.tpm); err != nil {
		return 0, fmt.Errorf("cannot count in the TPM: %w", err)
	}
	return c.Read()
}

// Read returns the value.
func (c *Counter) Read() (uint64, error) {
	r, err := tpm2.NVRead{AuthHandle: c.auth(), NVIndex: c.handle(), Size: 8}.Execute(c.tpm)
	if err != nil {
		return 0, fmt.Errorf("cannot read the TPM's counter: %w", err)
	}
	if len(r.Data.Buffer) != 8 {
		return 0, fmt.Errorf("cannot read the TPM's counter: it gave %d bytes", len(r.Data.Buffer))
	}
	return binary.BigEndian.Uint64(r.Data.Buffer), nil
}
