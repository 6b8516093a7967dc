// Package ticket is the authority over what a device may attach: a ticket
// authorises one set of cryptexes on one device, once.
//
// # Parties
//
// The publisher decides what may exist; it signs releases in the catalog with
// keys that never reach a server. The signing service decides who gets it: it
// signs a ticket for one device with a leaf key that lives for hours, under a
// root that is offline. The device pins that root in its operating system and
// believes nobody else. A ticket alone makes nothing acceptable: before it
// stages a set, a device compares it with the release in the catalog; at every
// boot it compares ticket, device, baseline and nonce again, offline.
//
// # Bytes
//
// A ticket is an Image4 manifest (package image4); spec/ticket.md is the
// specification. Its properties are
//
//	UDID  OCTET STRING, 32   the device's id, SHA-256 of its public key
//	prod  OCTET STRING       the product
//	bdig  OCTET STRING, 48   digest of the baseline that the set belongs to
//	ndom  INTEGER            nonce domain, 1
//	rels  OCTET STRING       id of the release; absent for the baseline itself
//	cnch  OCTET STRING, 48   the nonce; absent for the baseline itself
//
// and for the cryptex number NN, counted from 00 in the order of the names,
// there are three objects
//
//	cxNN  DGST digest of the image file, name, styp subtype (1 os, 2 app)
//	svNN  DGST digest of the seal, root the dm-verity root hash
//	tcNN  DGST digest of the trust cache
//
// Everything in a ticket is critical: Parse refuses a property or an object
// that isn't listed here. The signature is ECDSA P-384 (or RSA-4096) with
// SHA-384 over the manifest's signed part, by a leaf that the pinned root
// issued directly, and within the constraints of the leaf's critical
// extension.
//
// # Time
//
// Verification needs no clock, because at boot there is none to be trusted.
// So a leaf's end is no protection at boot, and isn't meant to be one. What
// bounds a ticket is the nonce: it is for one state of one device, and when
// that state passes the ticket is dead (see package nonce). What bounds a leaf are
// its constraints, the list of revoked leaves that travels with the catalog
// (Expect.Revoked), and, when a set is staged, the latest moment that the
// device knows to have passed (Expect.Since).
//
// # What the caller must still check
//
// Verify compares the claims with all that Expect states, and Expect can't be
// left half empty by mistake. It doesn't look at images: that the attached
// bytes have the ticket's seal is the kernel's job, that the files may execute
// is the trust cache's.
package ticket

import (
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/image4"
)

// Limits of a ticket.
const (
	MaxSize      = 32 << 10 // bytes of a whole ticket
	MaxCryptexes = 32
	MaxName      = 31 // bytes of a cryptex's name
	MaxProduct   = 64 // bytes
	MaxRelease   = 64 // bytes of a release's id
)

// Domain is the nonce domain of sets of cryptexes, the only one in use. A
// nonce of one domain says nothing in another.
const Domain uint32 = 1

// Claims are what a ticket says.
type Claims struct {
	Device    [32]byte  // SHA-256 of the device's public key (identity.ID)
	Product   string    // printable ASCII without spaces
	Baseline  [48]byte  // digest of the baseline document
	Release   string    // id of the improvement, "" for the baseline itself
	Domain    uint32    // nonce domain
	Nonce     [48]byte  // the device's nonce; zero exactly when Release is ""
	Cryptexes []Cryptex // the set, ascending by name
}

// Cryptex is one member of a set.
type Cryptex struct {
	Name       string   // lower-case letters, digits and hyphens
	Subtype    uint8    // 1 os, 2 app
	Image      [48]byte // SHA-384 of the whole image file
	Seal       [48]byte // SHA-384 of verity superblock and root hash
	TrustCache [48]byte // SHA-384 of the trust cache
	Root       [32]byte // dm-verity root hash
}

// Ticket is a parsed ticket. That it exists says nothing about its validity,
// unless it came from Verify.
type Ticket struct {
	Claims Claims
	Leaf   *x509.Certificate // who signed it

	manifest *image4.Manifest
}

// OfBaseline says whether this is the ticket of a baseline, which has no nonce
// and never ends.
func (t *Ticket) OfBaseline() bool { return t.Claims.Release == "" }

// Signed is the part that the signature covers, byte for byte.
func (t *Ticket) Signed() []byte { return t.manifest.Signed() }

// Signature is the signature as it stands in the ticket.
func (t *Ticket) Signature() []byte { return t.manifest.Signature }

// ID identifies the ticket: SHA-384 of its signed part. (The digest of the
// whole file would not do: anybody can turn one valid ECDSA signature into a
// second one.)
func (t *Ticket) ID() [48]byte { return sha512.Sum384(t.Signed()) }

// Codes of a ticket's properties.
const (
	codeDevice   = image4.Code("UDID")
	codeProduct  = image4.Code("prod")
	codeBaseline = image4.Code("bdig")
	codeRelease  = image4.Code("rels")
	codeDomain   = image4.Code("ndom")
	codeNonce    = image4.Code("cnch")
	codeDigest   = image4.Code("DGST")
	codeName     = image4.Code("name")
	codeSubtype  = image4.Code("styp")
	codeRoot     = image4.Code("root")
)

// The three objects of cryptex number n, which is below 100.
func imageCode(n int) image4.Code { return image4.Code(fmt.Sprintf("cx%02d", n)) }
func sealCode(n int) image4.Code  { return image4.Code(fmt.Sprintf("sv%02d", n)) }
func cacheCode(n int) image4.Code { return image4.Code(fmt.Sprintf("tc%02d", n)) }

// format encodes the claims as the signed part of a manifest.
func (c *Claims) format() (properties []image4.Property, objects []image4.Object) {
	properties = []image4.Property{
		{Code: codeDevice, Value: image4.Octets(c.Device[:])},
		{Code: codeProduct, Value: image4.Text(c.Product)},
		{Code: codeBaseline, Value: image4.Octets(c.Baseline[:])},
		{Code: codeDomain, Value: image4.Uint(uint64(c.Domain))},
	}
	if c.Release != "" {
		properties = append(properties,
			image4.Property{Code: codeRelease, Value: image4.Text(c.Release)},
			image4.Property{Code: codeNonce, Value: image4.Octets(c.Nonce[:])})
	}
	for i := range c.Cryptexes {
		x := &c.Cryptexes[i]
		objects = append(objects,
			image4.Object{Code: imageCode(i), Properties: []image4.Property{
				{Code: codeDigest, Value: image4.Octets(x.Image[:])},
				{Code: codeName, Value: image4.Text(x.Name)},
				{Code: codeSubtype, Value: image4.Uint(uint64(x.Subtype))},
			}},
			image4.Object{Code: sealCode(i), Properties: []image4.Property{
				{Code: codeDigest, Value: image4.Octets(x.Seal[:])},
				{Code: codeRoot, Value: image4.Octets(x.Root[:])},
			}},
			image4.Object{Code: cacheCode(i), Properties: []image4.Property{
				{Code: codeDigest, Value: image4.Octets(x.TrustCache[:])},
			}})
	}
	return properties, objects
}

// Parse reads a ticket's structure. It checks no signature and compares
// nothing: use Verify for that.
func Parse(der []byte) (*Ticket, error) {
	t, err := parse(der)
	if err != nil {
		return nil, fault.New(fault.Ticket, "cannot read ticket: %w", err)
	}
	return t, nil
}

func parse(der []byte) (*Ticket, error) {
	if len(der) > MaxSize {
		return nil, fmt.Errorf("it has %d bytes, at most %d are possible", len(der), MaxSize)
	}
	m, err := image4.Parse(der)
	if err != nil {
		return nil, err
	}
	t := &Ticket{manifest: m}
	if t.Claims, err = readClaims(m); err != nil {
		return nil, err
	}
	if err := t.Claims.check(); err != nil {
		return nil, err
	}
	if t.Leaf, err = x509.ParseCertificate(m.Certificate); err != nil {
		return nil, fmt.Errorf("its certificate can't be read: %w", err)
	}
	return t, nil
}

func readClaims(m *image4.Manifest) (Claims, error) {
	var c Claims
	own := reader{left: m.Properties}
	own.fixed(codeDevice, c.Device[:])
	c.Product = own.text(codeProduct)
	own.fixed(codeBaseline, c.Baseline[:])
	c.Domain = uint32(own.number(codeDomain, 1<<32-1))
	if own.has(codeRelease) || own.has(codeNonce) {
		c.Release = own.text(codeRelease)
		own.fixed(codeNonce, c.Nonce[:])
		if own.err == nil && (c.Release == "" || c.Nonce == [48]byte{}) {
			return c, fmt.Errorf("its release or nonce is empty")
		}
	}
	if err := own.close(); err != nil {
		return c, err
	}
	if len(m.Objects)%3 != 0 || len(m.Objects) > 3*MaxCryptexes {
		return c, fmt.Errorf("it has %d objects, not three for each of at most %d cryptexes", len(m.Objects), MaxCryptexes)
	}
	// Objects are in ascending order: all cx, all sv, all tc.
	n := len(m.Objects) / 3
	c.Cryptexes = make([]Cryptex, n)
	for i := range n {
		x := &c.Cryptexes[i]
		image := open(m.Objects[i], imageCode(i))
		image.fixed(codeDigest, x.Image[:])
		x.Name = image.text(codeName)
		x.Subtype = uint8(image.number(codeSubtype, 255))
		seal := open(m.Objects[n+i], sealCode(i))
		seal.fixed(codeDigest, x.Seal[:])
		seal.fixed(codeRoot, x.Root[:])
		cache := open(m.Objects[2*n+i], cacheCode(i))
		cache.fixed(codeDigest, x.TrustCache[:])
		for _, r := range []*reader{&image, &seal, &cache} {
			if err := r.close(); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

// reader takes properties out of a list one by one; what nobody asked for is
// an error in the end.
type reader struct {
	object image4.Code // "" for the manifest itself
	left   []image4.Property
	taken  int
	err    error
}

func open(o image4.Object, want image4.Code) reader {
	r := reader{object: o.Code, left: o.Properties}
	if o.Code != want {
		r.err = fmt.Errorf("it has an object %s where %s must be", o.Code, want)
	}
	return r
}

func (r *reader) fail(c image4.Code, why string) {
	if r.err == nil {
		where := string(c)
		if r.object != "" {
			where = string(r.object) + "." + where
		}
		r.err = fmt.Errorf("%s %s", where, why)
	}
}

func (r *reader) has(c image4.Code) bool {
	_, ok := image4.Find(r.left, c)
	return ok
}

func (r *reader) octets(c image4.Code) []byte {
	v, ok := image4.Find(r.left, c)
	if !ok {
		r.fail(c, "is missing")
		return nil
	}
	r.taken++
	b, ok := v.Octets()
	if !ok {
		r.fail(c, "is not an OCTET STRING")
	}
	return b
}

func (r *reader) fixed(c image4.Code, dst []byte) {
	if b := r.octets(c); len(b) != len(dst) {
		r.fail(c, fmt.Sprintf("has %d bytes instead of %d", len(b), len(dst)))
	} else {
		copy(dst, b)
	}
}

func (r *reader) text(c image4.Code) string { return string(r.octets(c)) }

func (r *reader) number(c image4.Code, most uint64) uint64 {
	v, ok := image4.Find(r.left, c)
	if !ok {
		r.fail(c, "is missing")
		return 0
	}
	r.taken++
	n, ok := v.Uint()
	if !ok || n > most {
		r.fail(c, fmt.Sprintf("is not an INTEGER up to %d", most))
	}
	return n
}

func (r *reader) close() error {
	if r.err == nil && r.taken != len(r.left) {
		for _, p := range r.left {
			if !known(r.object, p.Code) {
				r.fail(p.Code, "is not known")
			}
		}
	}
	return r.err
}

// known says which properties belong to the manifest ("") or an object.
func known(object, c image4.Code) bool {
	set := "UDID prod bdig ndom rels cnch"
	if object != "" {
		set = map[string]string{"cx": "DGST name styp", "sv": "DGST root", "tc": "DGST"}[string(object[:2])]
	}
	return strings.Contains(" "+set+" ", " "+string(c)+" ")
}

// check holds the rules that claims must satisfy on their own, whether they
// are issued or read.
func (c *Claims) check() error {
	switch {
	case c.Device == [32]byte{}:
		return fmt.Errorf("the device id is empty")
	case c.Baseline == [48]byte{}:
		return fmt.Errorf("the baseline digest is empty")
	case c.Domain == 0:
		return fmt.Errorf("the nonce domain is 0")
	case (c.Release == "") != (c.Nonce == [48]byte{}):
		return fmt.Errorf("it has a release without a nonce or a nonce without a release")
	case !validProduct(c.Product):
		return fmt.Errorf("%q can't be a product", c.Product)
	case c.Release != "" && !validRelease(c.Release):
		return fmt.Errorf("%q can't be a release", c.Release)
	case len(c.Cryptexes) == 0 || len(c.Cryptexes) > MaxCryptexes:
		return fmt.Errorf("it has %d cryptexes, 1 to %d are possible", len(c.Cryptexes), MaxCryptexes)
	}
	for i := range c.Cryptexes {
		x := &c.Cryptexes[i]
		if !validName(x.Name) {
			return fmt.Errorf("%q can't be the name of a cryptex", x.Name)
		}
		if i > 0 && c.Cryptexes[i-1].Name >= x.Name {
			return fmt.Errorf("cryptex %s is not in ascending order of names", x.Name)
		}
		if x.Subtype != 1 && x.Subtype != 2 {
			return fmt.Errorf("cryptex %s has subtype %d, neither 1 (os) nor 2 (app)", x.Name, x.Subtype)
		}
		if x.Image == [48]byte{} || x.Seal == [48]byte{} || x.TrustCache == [48]byte{} || x.Root == [32]byte{} {
			return fmt.Errorf("cryptex %s has an empty digest", x.Name)
		}
	}
	return nil
}

// Printable ASCII without spaces.
func validProduct(s string) bool {
	return every(s, MaxProduct, func(c byte) bool { return c > ' ' && c <= '~' })
}

// Letters, digits, '.', '_' and '-', not beginning with '.': it is safe as a
// file's name.
func validRelease(s string) bool {
	return every(s, MaxRelease, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
	}) && s[0] != '.'
}

func validName(s string) bool {
	return every(s, MaxName, func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' })
}

func every(s string, most int, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= most
}
