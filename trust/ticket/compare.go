package ticket

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Known is what somebody knows who wants to judge a ticket, and may be less
// than a device knows: what is zero is not compared. It is for showing; a
// device decides by Verify, which leaves nothing out by mistake.
type Known struct {
	Device     [32]byte
	Product    string
	Baseline   [48]byte
	OfBaseline bool // a baseline's ticket is expected
	Nonce      [48]byte
	Release    string
	Cryptexes  []Cryptex // the whole set
	Revoked    [][32]byte
	Since      time.Time
}

// Comparison is one thing that was looked at.
type Comparison struct {
	What     string // device, product, baseline, domain, nonce, release, set, signature
	Compared bool   // false: nothing was known to compare it with
	Err      error  // why the ticket is refused; nil if it isn't
	Text     string // the good news, or what wasn't compared
}

// Compare judges a ticket by what is known, each thing by itself, in the words
// of Verify. The signature, and the leaf under the root, are always judged, and
// the nonce domain.
func (t *Ticket) Compare(root *x509.Certificate, k Known) []Comparison {
	c := &t.Claims
	var all []Comparison
	add := func(what string, compared bool, err error, text string) {
		if !compared {
			err, text = nil, "not compared: "+text
		}
		all = append(all, Comparison{what, compared, err, text})
	}
	add("device", k.Device != [32]byte{}, c.matchDevice(k.Device), short(c.Device[:])+"…")
	add("product", k.Product != "", c.matchProduct(k.Product), c.Product)
	add("baseline", k.Baseline != [48]byte{}, c.matchBaseline(k.Baseline), short(c.Baseline[:])+"…")
	add("domain", true, c.matchDomain(), fmt.Sprint(c.Domain))
	add("nonce", k.OfBaseline || k.Nonce != [48]byte{}, c.matchNonce(k.OfBaseline, k.Nonce), nonceText(c))
	if !k.OfBaseline {
		add("release", k.Release != "", c.matchRelease(k.Release), cmp.Or(c.Release, "none: a baseline's ticket"))
	}
	set := slices.SortedFunc(slices.Values(k.Cryptexes), func(a, b Cryptex) int { return strings.Compare(a.Name, b.Name) })
	add("set", len(set) > 0, matchSet(c.Cryptexes, set), fmt.Sprintf("%d cryptexes", len(c.Cryptexes)))
	add("signature", true, t.authentic(root, &Expect{Revoked: k.Revoked, Since: k.Since}), "by "+plain(t.Leaf.Subject.CommonName)+" under the root")
	return all
}

func nonceText(c *Claims) string {
	if c.Release == "" {
		return "none: a baseline's ticket"
	}
	return short(c.Nonce[:]) + "…"
}
