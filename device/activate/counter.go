package activate

import (
	"fmt"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/nonce"
	"github.com/sealant-os/sealant/trust/tpm"
)

// uncounted is the refusal of every set whose ticket bears a nonce, because
// the TPM's counter doesn't say that the nonces are the present ones.
type uncounted struct{ cause error }

func (e *uncounted) Error() string { return e.cause.Error() }
func (e *uncounted) Unwrap() error { return e.cause }

// CheckNonces holds the nonces against the TPM's counter. Without it whoever
// can write the state could put a copy of an older day back, nonces included,
// and with them a ticket that had ended. A device whose key is in a file has no
// counter: there it is nil.
//
// A TPM that doesn't answer is no yes: a firmware's menu can switch it off. The
// error of nonces that are an old copy is of the kind fault.Ticket, any other
// says that they can't be judged. Nothing is changed: that the device was
// killed between writing the nonces down and counting is mended by the journeys
// (spec/ticket.md).
func CheckNonces(st *store.Store) error {
	key, err := st.IdentityKey()
	if err != nil {
		return err
	}
	if !identity.IsTPMKey(key) {
		return nil
	}
	n, err := st.Nonces()
	if err != nil {
		return err
	}
	return counted(st, n)
}

func counted(st *store.Store, n nonce.State) error {
	counter, err := readCounter(st)
	if err != nil {
		return &uncounted{fmt.Errorf("cannot tell whether the nonces are the present ones: %w", err)}
	}
	if _, err := n.Against(counter); err != nil {
		return &uncounted{fault.New(fault.Ticket, "%w", err)}
	}
	return nil
}

func readCounter(st *store.Store) (uint64, error) {
	//lint:ignore SA1019 it opens the socket of a software TPM as well as a device
	t, err := transport.OpenTPM(st.TPMPath())
	if err != nil {
		return 0, fmt.Errorf("cannot use the TPM: %w", err)
	}
	defer t.Close()
	c, err := tpm.OpenCounter(t)
	if err != nil {
		return 0, err
	}
	return c.Read()
}
