package device

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/upstream"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/nonce"
	"github.com/sealant-os/sealant/trust/tpm"
)

// A device whose key is in a TPM counts every change of its nonces there
// (spec/ticket.md, "The counter"). The order is always: write the nonces down,
// then count. A kill between the two leaves nonces that are one step ahead, and
// what comes next counts first. The other order would leave a device that takes
// its own present for an old copy.

// tpmKey is the device's key if it is in a TPM, nil if it is in a file.
func (d *Device) tpmKey() (*identity.TPMKey, error) {
	text, err := d.Store.IdentityKey()
	if err != nil || !identity.IsTPMKey(text) {
		return nil, err
	}
	return identity.ParseTPMKey(text)
}

// anyCounter finds the TPM's counter, or makes it.
func anyCounter(t transport.TPM) (*tpm.Counter, error) {
	c, err := tpm.OpenCounter(t)
	if errors.Is(err, tpm.ErrNoCounter) {
		c, _, err = tpm.NewCounter(t)
	}
	return c, err
}

// firstNonces writes the nonces that a device begins with.
func (d *Device) firstNonces() error {
	k, err := d.tpmKey()
	if err != nil {
		return err
	}
	if k == nil {
		n, err := nonce.New(d.Rand)
		if err != nil {
			return err
		}
		return d.Store.WriteNonces(n)
	}
	t, err := d.openTPM()
	if err != nil {
		return err
	}
	defer t.Close()
	return d.freshNonces(t)
}

// freshNonces replaces the nonces, whatever they were, by random ones one step
// above the counter: no copy of any older ones is accepted again.
func (d *Device) freshNonces(t transport.TPM) error {
	c, err := anyCounter(t)
	if err != nil {
		return err
	}
	value, err := c.Read()
	if err != nil {
		return err
	}
	n, err := nonce.NewAt(d.Rand, value+1)
	if err != nil {
		return err
	}
	if err := d.Store.WriteNonces(n); err != nil {
		return err
	}
	_, err = c.Increment()
	return err
}

// writeNonces writes down the next step of the nonces, and counts it. Nothing
// is written while the TPM doesn't answer or says that the nonces are an old
// copy.
func (d *Device) writeNonces(n nonce.State) error {
	before, err := d.Store.Nonces()
	if err != nil || before == n {
		return err
	}
	k, err := d.tpmKey()
	if err != nil {
		return err
	}
	if k == nil {
		return d.Store.WriteNonces(n)
	}
	if n.Step() != before.Step()+1 {
		return fmt.Errorf("cannot write nonces: step %d does not follow on step %d", n.Step(), before.Step())
	}
	t, err := d.openTPM()
	if err != nil {
		return err
	}
	defer t.Close()
	c, err := tpm.OpenCounter(t)
	if err != nil {
		return err
	}
	if err := settle(c, before); err != nil {
		return err
	}
	if err := d.Store.WriteNonces(n); err != nil {
		return err
	}
	_, err = c.Increment()
	return err
}

// settle counts what a kill kept from being counted.
func settle(c *tpm.Counter, n nonce.State) error {
	value, err := c.Read()
	if err != nil {
		return err
	}
	behind, err := n.Against(value)
	if behind {
		_, err = c.Increment()
	}
	return err
}

// settleNonces is done before any journey, with the state's lock held. If the
// state is an old copy the device starts over; a TPM that doesn't answer stops
// only what needs it.
func (d *Device) settleNonces(report Report) error {
	k, err := d.tpmKey()
	if err != nil || k == nil {
		return err
	}
	n, err := d.Store.Nonces()
	if err != nil {
		return err
	}
	t, err := d.openTPM()
	if err != nil {
		report.warn("tpm", "%v", err)
		return nil
	}
	defer t.Close()
	c, err := tpm.OpenCounter(t)
	if err == nil {
		var value uint64
		if value, err = c.Read(); err != nil {
			report.warn("tpm", "%v", err)
			return nil
		}
		var behind bool
		if behind, err = n.Against(value); err == nil {
			if behind {
				_, err = c.Increment()
			}
			return err
		}
	} else if !errors.Is(err, tpm.ErrNoCounter) {
		report.warn("tpm", "%v", err)
		return nil
	}
	// In another machine there is no starting over: its TPM knows neither key
	// nor counter.
	probe := sha256.Sum256([]byte("sealant"))
	if _, bad := tpm.Signer(t, k).Sign(d.Rand, probe[:], crypto.SHA256); bad != nil {
		report.warn("tpm", "%v", bad)
		return nil
	}
	return d.startOver(t, err, report)
}

// startOver makes the best of a state that is an old copy, or whose counter is
// gone: the device goes on from its baseline with fresh nonces. Which sets it
// had since then nobody here knows, so all tickets end. The nonces come last:
// until they are replaced a device that is killed does it all again.
func (d *Device) startOver(t transport.TPM, why error, report Report) error {
	report.warn("nonces", "%v; this device goes on from its baseline", why)
	if err := d.Store.ClearJournal(); err != nil {
		return err
	}
	if err := d.Store.Point(store.Next, ""); err != nil {
		return err
	}
	if base := d.Store.SlotID(store.Base); base != "" {
		if err := d.Store.Point(store.Current, base); err != nil {
			return err
		}
	}
	if err := d.Store.Point(store.Previous, ""); err != nil {
		return err
	}
	err := d.Store.Append(store.Record{
		Time: d.Now(), Event: "started-over", Set: d.Store.SlotID(store.Base), Reason: "old-state", Actor: string(Auto), Text: upstream.Clean(why.Error()),
	})
	if err != nil {
		return err
	}
	if err := d.freshNonces(t); err != nil {
		return err
	}
	return d.unstage(context.Background())
}
