package activate

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/image/seal"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/nonce"
	"github.com/sealant-os/sealant/trust/ticket"
)

// maxCertificate bounds the pinned root certificate's file, in bytes.
const maxCertificate = 64 << 10

// authority is what the device holds against a ticket.
type authority struct {
	baseline release.Baseline
	digest   release.Digest
	root     *x509.Certificate
	device   identity.ID
	nonces   nonce.State
	present  func() error // whether the nonces are no old copy; asks the TPM once
}

// ReadBaseline reads what the OS update says of its own cryptexes.
func ReadBaseline(st *store.Store) (release.Baseline, error) {
	data, err := store.ReadFile(st.BaselinePath(), release.MaxBaseline)
	if err != nil {
		return release.Baseline{}, fmt.Errorf("cannot read the baseline: %w", err)
	}
	return release.ParseBaseline(data)
}

// readAuthority reads all that a ticket is compared with. The device's id is
// computed from its key rather than read, so that no file but the key decides
// which tickets are this device's.
func readAuthority(st *store.Store, baseline release.Baseline) (*authority, error) {
	a := &authority{baseline: baseline, digest: baseline.Digest()}
	text, err := store.ReadFile(st.TicketRootPath(), maxCertificate)
	if err != nil {
		return nil, fmt.Errorf("cannot read the root certificate for tickets: %w", err)
	}
	if a.root, err = ticket.ParseRoot(text); err != nil {
		return nil, err
	}
	if text, err = st.IdentityKey(); err != nil {
		return nil, err
	}
	public, err := identity.PublicOf(text)
	if err != nil {
		return nil, err
	}
	if a.device, err = identity.IDOf(public); err != nil {
		return nil, err
	}
	if a.nonces, err = st.Nonces(); err != nil {
		return nil, err
	}
	a.present = func() error { return nil }
	if identity.IsTPMKey(text) {
		a.present = sync.OnceValue(func() error { return counted(st, a.nonces) })
	}
	return a, nil
}

// authorise verifies a set's ticket. A baseline's ticket has no nonce; that of
// an improvement must bear the given one.
func (a *authority) authorise(set store.Set, nonce [48]byte) ([]ticket.Cryptex, error) {
	if set.Baseline != store.Digest(a.digest) {
		return nil, inert(set)
	}
	if err := a.whole(set); err != nil {
		return nil, err
	}
	want := contents(set)
	expect := ticket.Expect{
		Device: a.device, Product: a.baseline.Product, Baseline: a.digest, Cryptexes: want,
	}
	if set.IsBaseline() {
		expect.OfBaseline = true
	} else {
		if err := a.present(); err != nil {
			return nil, err
		}
		expect.Nonce, expect.Release = nonce, set.Release
	}
	_, err := ticket.Verify(set.Ticket, a.root, expect)
	return want, err
}

// whole says whether the set has exactly the cryptexes that the OS update
// brought: what was moved out of its tree must be there, and nothing else has
// a place.
func (a *authority) whole(set store.Set) error {
	same := slices.EqualFunc(set.Cryptexes, a.baseline.Cryptexes, func(x store.Cryptex, y release.Image) bool {
		return x.Name == y.Name && x.Subtype == uint8(y.Subtype)
	})
	if !same {
		return fault.New(fault.Seal, "cannot use the set %s: its cryptexes are not those of the baseline", set.ID)
	}
	return nil
}

// inert is the answer to a set that was made for another baseline: an OS
// update ends everything that was for the old one.
func inert(set store.Set) error {
	return fault.New(fault.NotEligible, "cannot use the set %s: it belongs to another baseline, %.8s…, than the one that is installed", set.ID, set.Baseline)
}

// stagedNonce is the nonce that the ticket of the set in Next must bear: the
// prerolled one, or the current one if the set was confirmed already and only
// the last step of that is missing.
func (a *authority) stagedNonce(set store.Set) ([48]byte, error) {
	if set.IsBaseline() {
		return [48]byte{}, nil
	}
	if a.confirmed(set) {
		return a.nonces.Current(), nil
	}
	nonce, ok := a.nonces.Prerolled()
	if !ok {
		return nonce, fault.New(fault.Ticket, "cannot use the set %s: no nonce was prepared for it", set.ID)
	}
	return nonce, nil
}

// confirmed says whether the set's ticket is for the nonce in force.
func (a *authority) confirmed(set store.Set) bool {
	t, err := ticket.Parse(set.Ticket)
	return err == nil && !t.OfBaseline() && t.Claims.Nonce == a.nonces.Current()
}

// contents is what a set's ticket must say of its cryptexes.
func contents(set store.Set) []ticket.Cryptex {
	list := make([]ticket.Cryptex, len(set.Cryptexes))
	for i, c := range set.Cryptexes {
		list[i] = ticket.Cryptex{
			Name: c.Name, Subtype: c.Subtype, Image: c.Image, TrustCache: c.TrustCache, Root: c.Seal.Root,
			Seal: seal.Seal{Root: c.Seal.Root, Salt: c.Seal.Salt, DataBlocks: c.Seal.DataBlocks}.Digest(),
		}
	}
	return list
}

// baselineContents is what the OS update itself says of its cryptexes.
func baselineContents(b release.Baseline) []ticket.Cryptex {
	list := make([]ticket.Cryptex, len(b.Cryptexes))
	for i, c := range b.Cryptexes {
		list[i] = ticket.Cryptex{
			Name: c.Name, Subtype: uint8(c.Subtype), Image: c.Digest, TrustCache: c.TrustCache,
			Root: c.Seal.Root, Seal: c.Seal.Digest,
		}
	}
	return list
}

// empty says whether an error means "nothing there" rather than "broken".
func empty(err error) bool { return errors.Is(err, store.ErrEmpty) }
