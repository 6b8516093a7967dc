package ticket

import (
	"bytes"
	"crypto"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/image4"
	"github.com/sealant-os/sealant/trust/nonce"
)

var write = flag.Bool("write", false, "write the vectors of spec/vectors/ticket anew")

const vectors = "../../spec/vectors/ticket"

// reasons are the words of Verify's errors for each expect line.
var reasons = map[string][]string{
	"wrong device":      {"for another device"},
	"wrong product":     {"for the product"},
	"wrong baseline":    {"belongs to the baseline"},
	"wrong nonce":       {"nonce is not in force", "for the baseline, not for a release", "not for the baseline", "its nonce is of domain"},
	"wrong release":     {"instead of SI-"},
	"wrong set":         {"for the set"},
	"wrong image":       {"another image"},
	"wrong seal":        {"another seal"},
	"wrong trust cache": {"another trust cache"},
	"wrong subtype":     {"with subtype"},
	"wrong key":         {"its signature is wrong", "the root did not sign the leaf", "issued by somebody else"},
	"wrong leaf":        {"the leaf is ", "the leaf has ", "the leaf's ", "the leaf: ", "the leaf can't"},
	"leaf constraint":   {"its leaf may not sign it"},
	"non-canonical":     {"not in its shortest form", "not in ascending order", "neither 00 nor ff", "of type", "type 24", "not in its only form"},
	"truncated":         {"ends too early"},
	"extra bytes":       {"extra bytes"},
	"malformed":         {"cannot read ticket"},
}

// vector is one file of the folder.
type vector struct {
	comment, expect, root string
	want                  Expect
	der                   []byte
}

func (v *vector) format() []byte {
	var b bytes.Buffer
	line := func(key, value string) { fmt.Fprintf(&b, "%s: %s\n", key, value) }
	line("comment", v.comment)
	line("expect", v.expect)
	line("root", v.root)
	line("device", hex.EncodeToString(v.want.Device[:]))
	line("product", v.want.Product)
	line("baseline", hex.EncodeToString(v.want.Baseline[:]))
	if v.want.OfBaseline {
		line("nonce", "none")
	} else {
		line("nonce", hex.EncodeToString(v.want.Nonce[:]))
		line("release", v.want.Release)
	}
	for _, x := range v.want.Cryptexes {
		line("cryptex", fmt.Sprintf("%s %d %x %x %x %x", x.Name, x.Subtype, x.Image, x.Seal, x.Root, x.TrustCache))
	}
	b.WriteByte('\n')
	for text := base64.StdEncoding.EncodeToString(v.der); len(text) > 0; {
		n := min(76, len(text))
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	return b.Bytes()
}

func parseVector(t *testing.T, text []byte) vector {
	t.Helper()
	head, body, ok := strings.Cut(string(text), "\n\n")
	if !ok {
		t.Fatal("no empty line")
	}
	var v vector
	unhex := func(dst []byte, value string) {
		if b, err := hex.DecodeString(value); err != nil || copy(dst, b) != len(dst) || len(b) != len(dst) {
			t.Fatalf("%q is not %d bytes in hexadecimal", value, len(dst))
		}
	}
	for line := range strings.Lines(head + "\n") {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch key {
		case "comment":
			v.comment = value
		case "expect":
			v.expect = value
		case "root":
			v.root = value
		case "device":
			unhex(v.want.Device[:], value)
		case "product":
			v.want.Product = value
		case "baseline":
			unhex(v.want.Baseline[:], value)
		case "nonce":
			if v.want.OfBaseline = value == "none"; !v.want.OfBaseline {
				unhex(v.want.Nonce[:], value)
			}
		case "release":
			v.want.Release = value
		case "cryptex":
			var x Cryptex
			f := strings.Fields(value)
			x.Name, x.Subtype = f[0], f[1][0]-'0'
			for i, dst := range [][]byte{x.Image[:], x.Seal[:], x.Root[:], x.TrustCache[:]} {
				unhex(dst, f[2+i])
			}
			v.want.Cryptexes = append(v.want.Cryptexes, x)
		default:
			t.Fatalf("unknown key %q", key)
		}
	}
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(body, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	v.der = der
	return v
}

// TestVectors runs every vector of the folder, those of this package (which
// are made again and must be the same) and those of others.
func TestVectors(t *testing.T) {
	made := makeVectors(t)
	if *write {
		for name, text := range made {
			if err := os.WriteFile(filepath.Join(vectors, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, text := range made {
		if old, err := os.ReadFile(filepath.Join(vectors, name)); err != nil || !bytes.Equal(old, text) {
			t.Errorf("%s is not what this package makes: %v", name, err)
		}
	}
	files, err := filepath.Glob(filepath.Join(vectors, "*.txt"))
	if err != nil || len(files) < 60 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	seen := map[string]int{}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			v := parseVector(t, text)
			seen[v.expect]++
			pem, err := os.ReadFile(filepath.Join(vectors, v.root))
			if err != nil {
				t.Fatal(err)
			}
			root, err := ParseRoot(pem)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Verify(v.der, root, v.want)
			switch {
			case v.expect == "ok":
				if err != nil {
					t.Error(err)
				}
			case err == nil:
				t.Errorf("accepted, want %s", v.expect)
			case fault.KindOf(err) != fault.Ticket || !slices.ContainsFunc(reasons[v.expect], func(word string) bool { return strings.Contains(err.Error(), word) }):
				t.Errorf("want %s, got: %v", v.expect, err)
			}
		})
	}
	for reason := range reasons {
		if seen[reason] == 0 {
			t.Errorf("no vector expects %q", reason)
		}
	}
}

// makeVectors makes this package's vectors and their roots.
func makeVectors(t *testing.T) map[string][]byte {
	t.Helper()
	a, other := newAuthority(t, "vectors"), newAuthority(t, "other vectors")
	out := map[string][]byte{"root.pem": MarshalRoot(a.root), "other-root.pem": MarshalRoot(other.root)}
	c := example()
	properties, objects := c.format()
	add := func(name, wanted, comment string, der []byte, edit func(*Expect)) {
		v := vector{comment: comment, expect: wanted, root: "root.pem", want: expect(c), der: der}
		if edit != nil {
			edit(&v.want)
		}
		if _, there := out[name+".txt"]; there {
			t.Fatalf("two vectors called %s", name)
		}
		out[name+".txt"] = v.format()
	}
	der := a.issue(t, c)

	// What is accepted.
	add("ok", "ok", "an improvement of two cryptexes", der, nil)
	base := baselineExample()
	add("ok-baseline", "ok", "a baseline: no release, no nonce", a.issue(t, base), func(e *Expect) { *e = expect(base) })
	many := example()
	many.Cryptexes = nil
	for i := range MaxCryptexes {
		many.Cryptexes = append(many.Cryptexes, cryptex(fmt.Sprintf("cryptex-%02d", i), uint8(1+i%2)))
	}
	add("ok-32", "ok", "as many cryptexes as there may be", a.issue(t, many), func(e *Expect) { *e = expect(many) })
	leaf := func(edit func(*x509.Certificate)) []byte {
		return a.sign(t, a.certify(t, edit).Raw, properties, objects)
	}
	add("ok-any-product", "ok", "the leaf requires a product and pins none", leaf(constrain(t, Limits{}.constraints(), true)), nil)
	add("ok-this-baseline", "ok", "the leaf pins the baseline", leaf(constrain(t, Limits{Baseline: c.Baseline}.constraints(), true)), nil)
	add("ok-leaf-over", "ok", "the leaf ended in 1970; no clock is asked", leaf(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(0, 0), time.Unix(1, 0) }), nil)
	add("ok-leaf-without-usage", "ok", "the leaf states no key usage and no basic constraints", leaf(func(c *x509.Certificate) { c.KeyUsage, c.BasicConstraintsValid = 0, false }), nil)

	// What says something else.
	add("wrong-device", "wrong device", "another device's ticket", der, func(e *Expect) { e.Device[0] ^= 1 })
	add("wrong-product", "wrong product", "", der, func(e *Expect) { e.Product = "ExampleOS2" })
	add("wrong-baseline", "wrong baseline", "an OS update came between", der, func(e *Expect) { e.Baseline[47] ^= 0x80 })
	add("wrong-nonce", "wrong nonce", "the nonce has rolled", der, func(e *Expect) { e.Nonce = nonce.Seed{2}.Nonce() })
	add("wrong-nonce-baseline-for-release", "wrong nonce", "a baseline's ticket where an improvement's belongs", a.issue(t, base), nil)
	add("wrong-nonce-release-for-baseline", "wrong nonce", "an improvement's ticket where a baseline's belongs", der, func(e *Expect) { e.OfBaseline, e.Nonce, e.Release = true, [48]byte{}, "" })
	domain := example()
	domain.Domain = 2
	p2, o2 := domain.format()
	free := a.certify(t, allowEverything(t)).Raw
	add("wrong-nonce-domain", "wrong nonce", "a nonce of another domain", a.sign(t, free, p2, o2), nil)
	add("wrong-release", "wrong release", "", der, func(e *Expect) { e.Release = "SI-2026-0008" })
	add("wrong-set-smaller", "wrong set", "one cryptex is expected", der, func(e *Expect) { e.Cryptexes = e.Cryptexes[:1] })
	add("wrong-set-larger", "wrong set", "three cryptexes are expected", der, func(e *Expect) { e.Cryptexes = append(e.Cryptexes, cryptex("x", 1)) })
	add("wrong-set-name", "wrong set", "", der, func(e *Expect) { e.Cryptexes[1].Name = "wec" })
	add("wrong-image", "wrong image", "", der, func(e *Expect) { e.Cryptexes[1].Image[0] ^= 1 })
	add("wrong-seal", "wrong seal", "", der, func(e *Expect) { e.Cryptexes[0].Seal[0] ^= 1 })
	add("wrong-seal-root-hash", "wrong seal", "", der, func(e *Expect) { e.Cryptexes[0].Root[31] ^= 1 })
	add("wrong-trust-cache", "wrong trust cache", "", der, func(e *Expect) { e.Cryptexes[0].TrustCache[0] ^= 1 })
	add("wrong-subtype", "wrong subtype", "", der, func(e *Expect) { e.Cryptexes[0].Subtype = 2 })

	// Who signed it.
	v := vector{comment: "another root is pinned", expect: "wrong key", root: "other-root.pem", want: expect(c), der: der}
	out["wrong-key-root.txt"] = v.format()
	impostor := &authority{rootKey: steady{fixedKey(t, "impostor")}, leafKey: a.leafKey}
	var err error
	if impostor.root, err = NewRoot(zeros{}, impostor.rootKey, a.root.Subject.CommonName, begin, end); err != nil {
		t.Fatal(err)
	}
	nothing := func(*x509.Certificate) {}
	add("wrong-key-impostor", "wrong key", "the leaf of another root of the same name", a.sign(t, impostor.certify(t, nothing).Raw, properties, objects), nil)
	thief := &authority{leafKey: steady{fixedKey(t, "thief")}}
	add("wrong-key-signature", "wrong key", "signed with another key than the leaf's", thief.sign(t, a.leaf.cert.Raw, properties, objects), nil)
	between := &authority{rootKey: a.leafKey, leafKey: a.leafKey}
	between.root = a.certify(t, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.ExtraExtensions, c.Subject = true, x509.KeyUsageCertSign, nil, pkix.Name{CommonName: "between"}
	})
	add("wrong-key-intermediate", "wrong key", "the leaf of an authority that the root issued", a.sign(t, between.certify(t, nothing).Raw, properties, objects), nil)
	content := mustParse(t, der).Signed()[4:] // without the SET's tag and length
	add("wrong-key-content", "wrong key", "the signature covers the SET's content without its tag and length", a.frame(t, content, der), nil)
	signed := bytes.Clone(mustParse(t, der).Signed())
	signed[bytes.Index(signed, c.Nonce[:])+47] ^= 1
	forged, err := image4.Format(signed, mustParse(t, der).Signature(), a.leaf.cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	add("wrong-key-changed", "wrong key", "the nonce was changed after signing, to the one that is expected", forged, func(e *Expect) { e.Nonce[47] ^= 1 })

	// Leaves that can't sign tickets.
	ext := func(id asn1.ObjectIdentifier, critical bool, value []byte) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: value})
		}
	}
	codeSigning, _ := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 3}})
	add("wrong-leaf-no-constraints", "wrong leaf", "", leaf(func(c *x509.Certificate) { c.ExtraExtensions = nil }), nil)
	add("wrong-leaf-not-critical", "wrong leaf", "the constraints aren't critical", leaf(func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = false }), nil)
	add("wrong-leaf-unknown-critical", "wrong leaf", "", leaf(ext(asn1.ObjectIdentifier{1, 2, 3}, true, []byte{5, 0})), nil)
	add("wrong-leaf-critical-eku", "wrong leaf", "a critical extension that libraries handle and this format doesn't", leaf(ext(asn1.ObjectIdentifier{2, 5, 29, 37}, true, codeSigning)), nil)
	add("wrong-leaf-authority", "wrong leaf", "", leaf(func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	}), nil)
	add("wrong-leaf-usage", "wrong leaf", "for key agreement only", leaf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), nil)
	add("wrong-leaf-sha256", "wrong leaf", "the root signed with SHA-256", leaf(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA256 }), nil)
	add("wrong-leaf-constraints-malformed", "wrong leaf", "a length in long form within", leaf(func(c *x509.Certificate) {
		e := &c.ExtraExtensions[0]
		e.Value = append([]byte{0x31, 0x82, 0x00}, e.Value[2:]...)
	}), nil)

	// Leaves that may not sign this one.
	rule := func(code image4.Code, v image4.Value) image4.Constraints {
		u := Limits{Product: "ExampleOS"}.constraints()
		u.Manifest = slices.DeleteFunc(u.Manifest, func(p image4.Property) bool { return p.Code == code })
		if v.Kind() != 0 {
			u.Manifest = append(u.Manifest, image4.Property{Code: code, Value: v})
		}
		return u
	}
	limited := func(c image4.Constraints) []byte { return leaf(constrain(t, c, true)) }
	add("leaf-constraint-product", "leaf constraint", "the leaf is for another product", limited(Limits{Product: "OtherOS"}.constraints()), nil)
	add("leaf-constraint-baseline", "leaf constraint", "the leaf is for another baseline", limited(Limits{Baseline: sum("another")}.constraints()), nil)
	add("leaf-constraint-type", "leaf constraint", "the pinned value is of another type", limited(rule("ndom", image4.Octets([]byte{1}))), nil)
	add("leaf-constraint-unmentioned", "leaf constraint", "the nonce isn't mentioned", limited(rule("cnch", image4.Value{})), nil)
	add("leaf-constraint-missing", "leaf constraint", "a property is required that no ticket has", limited(rule("vnum", image4.Required())), nil)
	object := Limits{Product: "ExampleOS"}.constraints()
	object.Object = object.Object[:1]
	add("leaf-constraint-object", "leaf constraint", "objects may have nothing but a digest", limited(object), nil)
	requires := a.certify(t, constrain(t, rule("cnch", image4.Required()), true))
	pb, ob := base.format()
	add("leaf-constraint-baseline-ticket", "leaf constraint", "the leaf requires a nonce, a baseline has none", a.sign(t, requires.Raw, pb, ob), func(e *Expect) { *e = expect(base) })

	// What is no ticket.
	props := func(edit func([]image4.Property) []image4.Property) []byte {
		p, o := c.format()
		return a.sign(t, free, edit(p), o)
	}
	objs := func(edit func([]image4.Object) []image4.Object) []byte {
		p, o := c.format()
		return a.sign(t, free, p, edit(o))
	}
	set := func(code image4.Code, v image4.Value) []byte {
		return props(func(p []image4.Property) []image4.Property {
			p = slices.DeleteFunc(p, func(q image4.Property) bool { return q.Code == code })
			if v.Kind() != 0 {
				p = append(p, image4.Property{Code: code, Value: v})
			}
			return p
		})
	}
	add("malformed-empty", "truncated", "", nil, nil)
	add("malformed-unknown-property", "malformed", "a property that nobody knows, signed", set("evil", image4.Null()), nil)
	add("malformed-unknown-object", "malformed", "", objs(func(o []image4.Object) []image4.Object { return append(o, image4.Object{Code: "evil"}) }), nil)
	add("malformed-no-device", "malformed", "", set("UDID", image4.Value{}), nil)
	add("malformed-device-16", "malformed", "a device id of 16 bytes", set("UDID", image4.Octets(c.Device[:16])), nil)
	add("malformed-no-nonce", "malformed", "a release without a nonce", set("cnch", image4.Value{}), nil)
	add("malformed-no-release", "malformed", "a nonce without a release", set("rels", image4.Value{}), nil)
	add("malformed-zero-nonce", "malformed", "", set("cnch", image4.Octets(make([]byte, 48))), nil)
	add("malformed-text-type", "malformed", "the product is an INTEGER", set("prod", image4.Uint(5)), nil)
	add("malformed-release-path", "malformed", "", set("rels", image4.Text("../SI-2026-0007")), nil)
	add("malformed-no-cryptexes", "malformed", "", objs(func([]image4.Object) []image4.Object { return nil }), nil)
	add("malformed-no-trust-cache", "malformed", "the last object is missing", objs(func(o []image4.Object) []image4.Object { return o[:len(o)-1] }), nil)
	add("malformed-names-unsorted", "malformed", "", objs(func(o []image4.Object) []image4.Object {
		o[0].Properties, o[3].Properties = o[3].Properties, o[0].Properties
		return o
	}), nil)
	add("malformed-name-twice", "malformed", "", objs(func(o []image4.Object) []image4.Object { o[3].Properties = o[0].Properties; return o }), nil)
	add("malformed-subtype-3", "malformed", "", objs(func(o []image4.Object) []image4.Object { o[0].Properties[2].Value = image4.Uint(3); return o }), nil)
	add("malformed-certificate", "malformed", "", a.sign(t, []byte{0x30, 3, 2, 1, 42}, properties, objects), nil)
	add("truncated", "truncated", "one byte short", der[:len(der)-1], nil)
	add("truncated-half", "truncated", "", der[:len(der)/2], nil)
	add("extra-bytes", "extra bytes", "a byte after the manifest", append(bytes.Clone(der), 0), nil)
	add("extra-bytes-inside", "extra bytes", "a sixth element in the manifest", lengthen(der, []byte{5, 0}), nil)

	// Other encodings, signed where the signed part is changed.
	add("non-canonical-length", "non-canonical", "the outermost length in three bytes", append([]byte{0x30, 0x83, 0x00}, der[2:]...), nil)
	add("non-canonical-indefinite", "non-canonical", "the outermost length is indefinite", append(append([]byte{0x30, 0x80}, der[4:]...), 0, 0), nil)
	add("non-canonical-version", "non-canonical", "version 0 in two bytes", replaceOutside(der, []byte{2, 1, 0}, []byte{2, 2, 0, 0}), nil)
	resign := func(edit func([]byte) []byte) []byte {
		return a.reframe(t, edit(bytes.Clone(mustParse(t, der).Signed())), free)
	}
	add("non-canonical-order", "non-canonical", "two objects in the other order, signed", resign(func(s []byte) []byte {
		cx, sv := tagAt(s, "cx00"), tagAt(s, "cx01")
		n := tagAt(s, "sv00") - sv
		return slices.Concat(s[:cx], s[sv:sv+n], s[cx:sv], s[sv+n:])
	}), nil)
	add("non-canonical-twice", "non-canonical", "one object twice instead of two, signed", resign(func(s []byte) []byte {
		// The two caches have the same length.
		one, two := tagAt(s, "tc00"), tagAt(s, "tc01")
		copy(s[two:], s[one:two])
		return s
	}), nil)
	add("malformed-name", "malformed", "a name that differs from its tag, signed", resign(func(s []byte) []byte {
		i := bytes.Index(s, []byte("\x16\x04ndom"))
		copy(s[i+2:], "ndoM")
		return s
	}), nil)
	add("non-canonical-integer", "non-canonical", "the domain -1, signed", resign(func(s []byte) []byte {
		i := bytes.Index(s, []byte("ndom\x02\x01\x01"))
		s[i+6] = 0xff
		return s
	}), nil)
	add("malformed-string", "malformed", "the product as a UTF8String, signed", resign(func(s []byte) []byte {
		i := bytes.Index(s, []byte("prod\x04\x09ExampleOS"))
		s[i+4] = 0x0c
		return s
	}), nil)
	return out
}

// tagAt is where the object or property with this code begins.
func tagAt(s []byte, code image4.Code) int {
	one, err := image4.FormatSigned(nil, []image4.Object{{Code: code}})
	if err != nil {
		panic(err)
	}
	name := bytes.Index(one, []byte(code))
	tag := one[name-11 : name-5] // ff…, its length, 30, its length, 16, 04
	return bytes.Index(s, tag)
}

// lengthen adds an element at the manifest's end.
func lengthen(der, element []byte) []byte {
	n := len(der) - 4 + len(element)
	return slices.Concat([]byte{0x30, 0x82, byte(n >> 8), byte(n)}, der[4:], element)
}

// replaceOutside replaces something once and corrects the outermost length.
func replaceOutside(der, old, new []byte) []byte {
	return lengthen(bytes.Replace(der, old, new, 1), nil)
}

// frame signs something else than the signed part.
func (a *authority) frame(t *testing.T, what, der []byte) []byte {
	t.Helper()
	digest := sha512.Sum384(what)
	signature, err := a.leafKey.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	out, err := image4.Format(mustParse(t, der).Signed(), signature, a.leaf.cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// reframe signs a signed part as it is, canonical or not.
func (a *authority) reframe(t *testing.T, signed, cert []byte) []byte {
	t.Helper()
	digest := sha512.Sum384(signed)
	signature, err := a.leafKey.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	out, err := image4.Format(signed, signature, cert)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
