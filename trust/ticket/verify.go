package ticket

import (
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
)

// Expect is what a ticket must say to be accepted. There is no zero value that
// accepts anything: what may be left open is left open by a field that says
// so, and a field that is neither given nor left open makes Verify fail.
type Expect struct {
	Device   [32]byte // this device's id
	Product  string   // this device's product
	Baseline [48]byte // digest of the baseline that is installed

	Nonce      [48]byte // the nonce that is (or will be) in force
	OfBaseline bool     // a baseline's ticket is expected: Nonce and Release must be empty

	Release    string // the release's id
	AnyRelease bool   // any release will do; the caller reads it from the ticket

	Cryptexes []Cryptex // exactly this set, ascending by name
	AnySet    bool      // any set will do; the caller compares it or only shows it

	// Revoked are the leaves (see LeafID) that the catalog has revoked; nil
	// when there are none.
	Revoked [][32]byte
	// Since is a moment that has certainly passed, by which the leaf must not
	// have ended. It is for staging; at boot it stays zero, which checks
	// nothing, because a ticket that was good when staged stays good as long
	// as its nonce.
	Since time.Time
}

func (e *Expect) check() error {
	switch {
	case e.Device == [32]byte{}, e.Product == "", e.Baseline == [48]byte{}:
		return errors.New("device, product or baseline to compare with is missing")
	case e.OfBaseline && (e.Nonce != [48]byte{} || e.Release != "" || e.AnyRelease):
		return errors.New("a baseline's ticket has neither nonce nor release")
	case !e.OfBaseline && e.Nonce == [48]byte{}:
		return errors.New("the nonce to compare with is missing")
	case !e.OfBaseline && (e.Release == "") != e.AnyRelease:
		return errors.New("the release to compare with is missing, or given while any will do")
	case (len(e.Cryptexes) == 0) != e.AnySet:
		return errors.New("the set to compare with is missing, or given while any will do")
	}
	return nil
}

// Verify reads a ticket and checks everything about it: its form, that a leaf
// issued by root signed it within the leaf's constraints, and that it says
// what is expected. Every refusal has the kind fault.Ticket.
func Verify(der []byte, root *x509.Certificate, want Expect) (*Ticket, error) {
	if err := want.check(); err != nil {
		return nil, fmt.Errorf("cannot verify ticket: %w", err)
	}
	t, err := Parse(der)
	if err != nil {
		return nil, err
	}
	if err := t.authentic(root, &want); err != nil {
		return nil, fault.New(fault.Ticket, "cannot accept ticket: %w", err)
	}
	if err := t.Claims.match(&want); err != nil {
		return nil, fault.New(fault.Ticket, "cannot accept ticket: %w", err)
	}
	return t, nil
}

// Authentic says whether a leaf that root issued signed the ticket within its
// constraints. It is one part of Verify, for showing a ticket to a person who
// wants to know what is right and what is wrong about it: that a ticket is
// authentic doesn't make it acceptable anywhere.
func (t *Ticket) Authentic(root *x509.Certificate) error {
	if err := t.authentic(root, &Expect{}); err != nil {
		return fault.New(fault.Ticket, "cannot accept ticket: %w", err)
	}
	return nil
}

// authentic checks who signed the ticket.
func (t *Ticket) authentic(root *x509.Certificate, want *Expect) error {
	constraints, err := checkLeaf(t.Leaf, root)
	if err != nil {
		return err
	}
	if slices.Contains(want.Revoked, LeafID(t.Leaf)) {
		return errors.New("its leaf was revoked")
	}
	if !want.Since.IsZero() && t.Leaf.NotAfter.Before(want.Since) {
		return fmt.Errorf("its leaf ended on %s, and it is %s at least",
			t.Leaf.NotAfter.UTC().Format(time.RFC3339), want.Since.UTC().Format(time.RFC3339))
	}
	if err := checkSignature(t.Leaf.PublicKey, sha512.Sum384(t.Signed()), t.Signature()); err != nil {
		return err
	}
	if err := constraints.Check(t.manifest.Properties, t.manifest.Objects); err != nil {
		return fmt.Errorf("its leaf may not sign it: %w", err)
	}
	return nil
}

// match compares the claims with what is expected.
func (c *Claims) match(want *Expect) error {
	for _, err := range []error{
		c.matchDevice(want.Device), c.matchProduct(want.Product), c.matchBaseline(want.Baseline),
		c.matchDomain(), c.matchNonce(want.OfBaseline, want.Nonce),
	} {
		if err != nil {
			return err
		}
	}
	if !want.OfBaseline && !want.AnyRelease {
		if err := c.matchRelease(want.Release); err != nil {
			return err
		}
	}
	if want.AnySet {
		return nil
	}
	return matchSet(c.Cryptexes, want.Cryptexes)
}

func (c *Claims) matchDevice(want [32]byte) error {
	if c.Device != want {
		return fmt.Errorf("it is for another device, %s…", short(c.Device[:]))
	}
	return nil
}

func (c *Claims) matchProduct(want string) error {
	if c.Product != want {
		return fmt.Errorf("it is for the product %s, this is %s", c.Product, want)
	}
	return nil
}

func (c *Claims) matchBaseline(want [48]byte) error {
	if c.Baseline != want {
		return fmt.Errorf("it belongs to the baseline %s…, installed is %s…", short(c.Baseline[:]), short(want[:]))
	}
	return nil
}

func (c *Claims) matchDomain() error {
	if c.Domain != Domain {
		return fmt.Errorf("its nonce is of domain %d instead of %d", c.Domain, Domain)
	}
	return nil
}

// matchNonce tells a baseline's ticket, which has none, from all others.
func (c *Claims) matchNonce(ofBaseline bool, want [48]byte) error {
	switch {
	case ofBaseline && c.Release != "":
		return fmt.Errorf("it is for the release %s, not for the baseline", c.Release)
	case !ofBaseline && c.Release == "":
		return errors.New("it is for the baseline, not for a release")
	case c.Nonce != want:
		return errors.New("its nonce is not in force: it was made for an earlier or a discarded state")
	}
	return nil
}

func (c *Claims) matchRelease(want string) error {
	switch {
	case c.Release == "":
		return errors.New("it is for the baseline, not for a release")
	case c.Release != want:
		return fmt.Errorf("it is for the release %s instead of %s", c.Release, want)
	}
	return nil
}

// matchSet says in which way two sets differ.
func matchSet(got, want []Cryptex) error {
	if slices.Equal(got, want) {
		return nil
	}
	names := func(set []Cryptex) (all []string) {
		for _, x := range set {
			all = append(all, x.Name)
		}
		return all
	}
	if g, w := names(got), names(want); !slices.Equal(g, w) {
		return fmt.Errorf("it is for the set %v instead of %v", g, w)
	}
	for i, g := range got {
		w := want[i]
		switch {
		case g.Image != w.Image:
			return fmt.Errorf("it is for another image of %s, %s…", g.Name, short(g.Image[:]))
		case g.Seal != w.Seal || g.Root != w.Root:
			return fmt.Errorf("it is for another seal of %s, %s…", g.Name, short(g.Seal[:]))
		case g.TrustCache != w.TrustCache:
			return fmt.Errorf("it is for another trust cache of %s, %s…", g.Name, short(g.TrustCache[:]))
		case g.Subtype != w.Subtype:
			return fmt.Errorf("it is for %s with subtype %d instead of %d", g.Name, g.Subtype, w.Subtype)
		}
	}
	return errors.New("it is for another set")
}

func short(b []byte) string { return hex.EncodeToString(b[:4]) }
