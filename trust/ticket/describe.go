package ticket

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/image4"
)

// Field is one line of a ticket, decoded for a person.
type Field struct {
	Name    string `json:"name"`    // where it stands in the ticket: "UDID", "cx00.DGST", "certificate"
	Label   string `json:"label"`   // what it is called
	Value   string `json:"value"`   // digests in full, in hexadecimal
	Meaning string `json:"meaning"` // what it is for, in a few words
}

// Describe decodes the whole ticket, field by field. It vouches for nothing.
func (t *Ticket) Describe() []Field {
	c := &t.Claims
	id := t.ID()
	all := []Field{
		{"-", "ticket", hex.EncodeToString(id[:]), "identifies it: SHA-384 of the signed part"},
		{string(codeDevice), "device", hex.EncodeToString(c.Device[:]), "only the device " + identity.ID(c.Device).String() + " may use it"},
		{string(codeProduct), "product", c.Product, "and only as this product"},
		{string(codeBaseline), "baseline", hex.EncodeToString(c.Baseline[:]), "and only on this installed system"},
		{string(codeDomain), "nonce domain", fmt.Sprint(c.Domain), "sets of cryptexes"},
	}
	if t.OfBaseline() {
		all = append(all, Field{string(codeRelease), "release", "none", "the baseline itself: it has no nonce and never ends"})
	} else {
		all = append(all,
			Field{string(codeRelease), "release", c.Release, "the improvement that it authorises"},
			Field{string(codeNonce), "nonce", hex.EncodeToString(c.Nonce[:]), "for one state of the device; ends when the nonce rolls"})
	}
	for i := range c.Cryptexes {
		x := &c.Cryptexes[i]
		subtype := map[uint8]string{1: "os", 2: "app"}[x.Subtype]
		at := func(o image4.Code, p image4.Code) string { return string(o) + "." + string(p) }
		all = append(all,
			Field{at(imageCode(i), codeName), "cryptex", x.Name, fmt.Sprintf("member %d of %d of the set", i+1, len(c.Cryptexes))},
			Field{at(imageCode(i), codeSubtype), "subtype", fmt.Sprint(x.Subtype), subtype},
			Field{at(imageCode(i), codeDigest), "image", hex.EncodeToString(x.Image[:]), "SHA-384 of the image file"},
			Field{at(sealCode(i), codeDigest), "seal", hex.EncodeToString(x.Seal[:]), "SHA-384 of verity superblock and root hash"},
			Field{at(sealCode(i), codeRoot), "root hash", hex.EncodeToString(x.Root[:]), "dm-verity's, as the kernel checks it"},
			Field{at(cacheCode(i), codeDigest), "trust cache", hex.EncodeToString(x.TrustCache[:]), "SHA-384 of the list of what may execute"})
	}
	leaf := LeafID(t.Leaf)
	all = append(all,
		Field{"signature", "signature", hex.EncodeToString(t.Signature()), fmt.Sprintf("%v key, SHA-384", t.Leaf.PublicKeyAlgorithm)},
		Field{"certificate", "signed by", plain(t.Leaf.Subject.String()), "the signing service's leaf"},
		Field{"certificate", "issued by", plain(t.Leaf.Issuer.String()), "must be the pinned root"},
		Field{"certificate", "leaf", hex.EncodeToString(leaf[:]), "SHA-256 of its public key; revocations name it"},
		Field{"certificate", "leaf lived", t.Leaf.NotBefore.UTC().Format(time.RFC3339) + " to " + t.Leaf.NotAfter.UTC().Format(time.RFC3339), "looked at when staged, never at boot"},
		Field{"certificate", "may sign", limits(t), "the leaf's constraints"})
	return all
}

// plain keeps what an unverified ticket says from writing on a terminal
// anything but text.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// limits shows the leaf's constraints: "prod=…" is pinned, "UDID" required,
// "cnch?" allowed.
func limits(t *Ticket) string {
	for _, e := range t.Leaf.Extensions {
		if !e.Id.Equal(oidConstraints) {
			continue
		}
		c, err := image4.ParseConstraints(e.Value)
		if err != nil {
			return "malformed: " + err.Error()
		}
		show := func(name string, rules []image4.Property) string {
			words := []string{name}
			for _, r := range rules {
				switch r.Value.Kind() {
				case image4.KindRequired:
					words = append(words, string(r.Code))
				case image4.KindAllowed:
					words = append(words, string(r.Code)+"?")
				default:
					words = append(words, string(r.Code)+"="+r.Value.String())
				}
			}
			return strings.Join(words, " ")
		}
		return show("MANP", c.Manifest) + "; " + show("OBJP", c.Object)
	}
	return "nothing: it has no constraints"
}
