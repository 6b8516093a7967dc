package ticket

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/image4"
)

func TestIssueAndVerify(t *testing.T) {
	a := newAuthority(t, "test")
	for _, c := range []Claims{example(), baselineExample()} {
		der := a.issue(t, c)
		got, err := Verify(der, a.root, expect(c))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Claims, c) {
			t.Errorf("got  %+v\nwant %+v", got.Claims, c)
		}
		if got.OfBaseline() != (c.Release == "") || !bytes.Equal(got.Leaf.Raw, a.leaf.Certificate().Raw) {
			t.Error("kind or leaf differ")
		}
	}
}

func TestGreatestTicket(t *testing.T) {
	a := newAuthority(t, "test")
	c := example()
	c.Release, c.Cryptexes = strings.Repeat("R", MaxRelease), nil
	for i := range MaxCryptexes {
		c.Cryptexes = append(c.Cryptexes, cryptex(fmt.Sprintf("%s%02d", strings.Repeat("x", MaxName-2), i), 1))
	}
	der := a.issue(t, c)
	if _, err := Verify(der, a.root, expect(c)); err != nil {
		t.Error(err)
	}
	t.Logf("%d bytes of at most %d", len(der), MaxSize)
	c.Cryptexes = append(c.Cryptexes, cryptex("y", 1))
	if _, err := Issue(rand.Reader, a.leaf, c); err == nil {
		t.Error("issued a ticket with one cryptex too many")
	}
	if _, err := Parse(make([]byte, MaxSize+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a file that is too large: %v", err)
	}
}

// TestRefusals changes what is expected, one thing at a time.
func TestRefusals(t *testing.T) {
	a, other := newAuthority(t, "test"), newAuthority(t, "other")
	c := example()
	der, base := a.issue(t, c), a.issue(t, baselineExample())
	for _, test := range []struct {
		name string
		der  []byte
		edit func(*Expect)
		want string
	}{
		{"device", der, func(e *Expect) { e.Device[31] ^= 1 }, "another device"},
		{"product", der, func(e *Expect) { e.Product = "ExampleOT" }, "for the product ExampleOS"},
		{"baseline", der, func(e *Expect) { e.Baseline[0] ^= 1 }, "belongs to the baseline"},
		{"nonce", der, func(e *Expect) { e.Nonce[47] ^= 1 }, "nonce is not in force"},
		{"release", der, func(e *Expect) { e.Release = "SI-2026-0008" }, "for the release SI-2026-0007"},
		{"baseline expected", der, func(e *Expect) { e.OfBaseline, e.Release, e.Nonce = true, "", [48]byte{} }, "not for the baseline"},
		{"baseline given", base, func(*Expect) {}, "for the baseline, not for a release"},
		{"baseline given, any release", base, func(e *Expect) { e.Release, e.AnyRelease = "", true }, "for the baseline, not for a release"},
		{"image", der, func(e *Expect) { e.Cryptexes[1].Image[0] ^= 1 }, "another image of web"},
		{"seal", der, func(e *Expect) { e.Cryptexes[0].Seal[0] ^= 1 }, "another seal of os"},
		{"root hash", der, func(e *Expect) { e.Cryptexes[0].Root[0] ^= 1 }, "another seal of os"},
		{"trust cache", der, func(e *Expect) { e.Cryptexes[1].TrustCache[0] ^= 1 }, "another trust cache of web"},
		{"subtype", der, func(e *Expect) { e.Cryptexes[1].Subtype = 1 }, "web with subtype 2"},
		{"smaller set", der, func(e *Expect) { e.Cryptexes = e.Cryptexes[:1] }, "set [os web] instead of [os]"},
		{"larger set", der, func(e *Expect) { e.Cryptexes = append(e.Cryptexes, cryptex("x", 1)) }, "instead of [os web x]"},
		{"other name", der, func(e *Expect) { e.Cryptexes[1].Name = "wec" }, "instead of [os wec]"},
		{"unsorted set", der, func(e *Expect) { slices.Reverse(e.Cryptexes) }, "instead of [web os]"},
		{"revoked", der, func(e *Expect) { e.Revoked = [][32]byte{{1}, LeafID(a.leaf.Certificate())} }, "leaf was revoked"},
		{"ended", der, func(e *Expect) { e.Since = end.Add(1) }, "its leaf ended"},
		{"other signer", other.issue(t, c), func(*Expect) {}, "somebody else than the root"},
	} {
		e := expect(c)
		test.edit(&e)
		got, err := Verify(test.der, a.root, e)
		if err == nil || got != nil || fault.KindOf(err) != fault.Ticket || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	for name, edit := range map[string]func(*Expect){
		"any release":          func(e *Expect) { e.Release, e.AnyRelease = "", true },
		"any set":              func(e *Expect) { e.Cryptexes, e.AnySet = nil, true },
		"another leaf revoked": func(e *Expect) { e.Revoked = [][32]byte{{1}} },
		"not ended yet":        func(e *Expect) { e.Since = end },
	} {
		e := expect(c)
		edit(&e)
		if _, err := Verify(der, a.root, e); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNothingCanBeForgotten leaves out each expectation in turn.
func TestNothingCanBeForgotten(t *testing.T) {
	a := newAuthority(t, "test")
	for _, c := range []Claims{example(), baselineExample()} {
		der := a.issue(t, c)
		fields := reflect.TypeFor[Expect]()
		for i := range fields.NumField() {
			e := expect(c)
			field := reflect.ValueOf(&e).Elem().Field(i)
			if field.IsZero() {
				continue
			}
			field.SetZero()
			if _, err := Verify(der, a.root, e); err == nil {
				t.Errorf("accepted without %s", fields.Field(i).Name)
			}
		}
	}
	c := example()
	der := a.issue(t, c)
	if _, err := Verify(der, a.root, Expect{}); err == nil {
		t.Error("accepted with no expectation at all")
	}
	for name, edit := range map[string]func(*Expect){
		"a baseline with a nonce":       func(e *Expect) { e.OfBaseline = true },
		"a release and any release":     func(e *Expect) { e.AnyRelease = true },
		"a set and any set":             func(e *Expect) { e.AnySet = true },
		"a baseline and any release":    func(e *Expect) { e.OfBaseline, e.AnyRelease, e.Nonce, e.Release = true, true, [48]byte{}, "" },
		"a baseline's release, any set": func(e *Expect) { e.OfBaseline, e.AnySet, e.Cryptexes, e.Nonce = true, true, nil, [48]byte{} },
	} {
		e := expect(c)
		edit(&e)
		if _, err := Verify(der, a.root, e); err == nil || fault.KindOf(err) == fault.Ticket {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Verify(der, nil, expect(c)); err == nil {
		t.Error("accepted without a root")
	}
	if _, err := Verify(der, a.leaf.Certificate(), expect(c)); err == nil {
		t.Error("accepted with the leaf as the root")
	}
}

// TestEveryBit refuses a ticket with any one bit changed.
func TestEveryBit(t *testing.T) {
	a := newAuthority(t, "test")
	c := example()
	c.Cryptexes = c.Cryptexes[1:]
	der := a.issue(t, c)
	open := expect(c)
	open.AnyRelease, open.Release, open.AnySet, open.Cryptexes = true, "", true, nil
	var wait sync.WaitGroup
	for half := range 2 {
		wait.Go(func() {
			for bit := half; bit < 8*len(der); bit += 2 {
				if _, err := Verify(flip(der, bit), a.root, open); err == nil {
					t.Errorf("accepted with bit %d of byte %d changed", bit%8, bit/8)
				}
			}
		})
	}
	wait.Wait()
	for n := range der {
		if _, err := Verify(der[:n], a.root, open); err == nil {
			t.Errorf("accepted %d of %d bytes", n, len(der))
		}
	}
	if _, err := Verify(append(bytes.Clone(der), 0), a.root, open); err == nil {
		t.Error("accepted with an extra byte")
	}
}

// TestStructure signs properly what Parse must refuse.
func TestStructure(t *testing.T) {
	a := newAuthority(t, "test")
	c := example()
	type edit func(p []image4.Property, o []image4.Object) ([]image4.Property, []image4.Object)
	without := func(code image4.Code) edit {
		return func(p []image4.Property, o []image4.Object) ([]image4.Property, []image4.Object) {
			return slices.DeleteFunc(p, func(q image4.Property) bool { return q.Code == code }), o
		}
	}
	with := func(code image4.Code, v image4.Value) edit {
		return func(p []image4.Property, o []image4.Object) ([]image4.Property, []image4.Object) {
			p, _ = without(code)(p, nil)
			return append(p, image4.Property{Code: code, Value: v}), o
		}
	}
	object := func(n int, e edit) edit {
		return func(p []image4.Property, o []image4.Object) ([]image4.Property, []image4.Object) {
			o[n].Properties, _ = e(o[n].Properties, nil)
			return p, o
		}
	}
	objects := func(f func(o []image4.Object) []image4.Object) edit {
		return func(p []image4.Property, o []image4.Object) ([]image4.Property, []image4.Object) { return p, f(o) }
	}
	octets := func(n int) image4.Value { return image4.Octets(bytes.Repeat([]byte{1}, n)) }
	cases := map[string]edit{
		"no device":                without("UDID"),
		"device of 31 bytes":       with("UDID", octets(31)),
		"device of 33 bytes":       with("UDID", octets(33)),
		"device an INTEGER":        with("UDID", image4.Uint(5)),
		"device zero":              with("UDID", image4.Octets(make([]byte, 32))),
		"no product":               without("prod"),
		"empty product":            with("prod", image4.Text("")),
		"product with a space":     with("prod", image4.Text("Example OS")),
		"product with a newline":   with("prod", image4.Text("ExampleOS\n")),
		"product with NUL":         with("prod", image4.Text("ExampleOS\x00")),
		"product too long":         with("prod", image4.Text(strings.Repeat("p", MaxProduct+1))),
		"no baseline":              without("bdig"),
		"baseline of 32 bytes":     with("bdig", octets(32)),
		"no nonce domain":          without("ndom"),
		"nonce domain 0":           with("ndom", image4.Uint(0)),
		"nonce domain 2^32+1":      with("ndom", image4.Uint(1<<32+1)),
		"nonce domain OCTETS":      with("ndom", octets(1)),
		"no nonce":                 without("cnch"),
		"nonce of 47 bytes":        with("cnch", octets(47)),
		"nonce zero":               with("cnch", image4.Octets(make([]byte, 48))),
		"no release":               without("rels"),
		"empty release":            with("rels", image4.Text("")),
		"release a path":           with("rels", image4.Text("../SI-2026-0007")),
		"release hidden":           with("rels", image4.Text(".SI-2026-0007")),
		"release too long":         with("rels", image4.Text(strings.Repeat("r", MaxRelease+1))),
		"unknown property":         with("evil", image4.Null()),
		"property of an object":    with("DGST", octets(48)),
		"object: no digest":        object(0, without("DGST")),
		"object: short digest":     object(0, with("DGST", octets(32))),
		"object: zero digest":      object(2, with("DGST", image4.Octets(make([]byte, 48)))),
		"object: no name":          object(0, without("name")),
		"object: name a path":      object(0, with("name", image4.Text("../os"))),
		"object: name in capitals": object(0, with("name", image4.Text("OS"))),
		"object: name too long":    object(0, with("name", image4.Text(strings.Repeat("n", MaxName+1)))),
		"object: subtype 0":        object(0, with("styp", image4.Uint(0))),
		"object: subtype 3":        object(0, with("styp", image4.Uint(3))),
		"object: subtype 257":      object(0, with("styp", image4.Uint(257))),
		"object: unknown property": object(0, with("evil", image4.Null())),
		"object: name in a seal":   object(1, with("name", image4.Text("os"))),
		"object: no root hash":     object(1, without("root")),
		"object: root of 48":       object(1, with("root", octets(48))),
		"object: root in a cache":  object(2, with("root", octets(32))),
		"no objects":               objects(func([]image4.Object) []image4.Object { return nil }),
		"one object less":          objects(func(o []image4.Object) []image4.Object { return o[1:] }),
		"one object more":          objects(func(o []image4.Object) []image4.Object { return append(o, image4.Object{Code: "evil"}) }),
		"three objects more": objects(func(o []image4.Object) []image4.Object {
			return append(o, image4.Object{Code: "zz00"}, image4.Object{Code: "zz01"}, image4.Object{Code: "zz02"})
		}),
		"numbers with a gap": objects(func(o []image4.Object) []image4.Object {
			o[3].Code, o[4].Code, o[5].Code = "cx02", "sv02", "tc02"
			return o
		}),
		"numbers from one": objects(func(o []image4.Object) []image4.Object { return renumber(o, 1) }),
		"names out of order": objects(func(o []image4.Object) []image4.Object {
			o[0].Properties, o[3].Properties = o[3].Properties, o[0].Properties
			return o
		}),
		"one name twice":         objects(func(o []image4.Object) []image4.Object { o[3].Properties = o[0].Properties; return o }),
		"seal of another":        objects(func(o []image4.Object) []image4.Object { o[1].Code = "sv07"; return o }),
		"an object in its place": objects(func(o []image4.Object) []image4.Object { o[2].Code = "ta00"; return o }),
	}
	everything := a.certify(t, allowEverything(t))
	for name, e := range cases {
		properties, list := c.format()
		for i := range list {
			list[i].Properties = slices.Clone(list[i].Properties)
		}
		properties, list = e(properties, list)
		der := a.sign(t, everything.Raw, properties, list)
		if _, err := Parse(der); err == nil || fault.KindOf(err) != fault.Ticket {
			t.Errorf("%s: %v", name, err)
		}
	}
	properties, list := c.format()
	if _, err := Verify(a.sign(t, everything.Raw, properties, list), a.root, expect(c)); err != nil {
		t.Errorf("the unchanged one: %v", err)
	}
}

func renumber(o []image4.Object, by int) []image4.Object {
	for i := range o {
		o[i].Code = image4.Code(fmt.Sprintf("%s%02d", o[i].Code[:2], i/3+by))
	}
	return o
}

// TestIssueRefuses: what a device would refuse is never signed.
func TestIssueRefuses(t *testing.T) {
	a := newAuthority(t, "test")
	for name, edit := range map[string]func(*Claims){
		"no device":             func(c *Claims) { c.Device = [32]byte{} },
		"no baseline":           func(c *Claims) { c.Baseline = [48]byte{} },
		"no nonce":              func(c *Claims) { c.Nonce = [48]byte{} },
		"nonce without release": func(c *Claims) { c.Release = "" },
		"no domain":             func(c *Claims) { c.Domain = 0 },
		"another domain":        func(c *Claims) { c.Domain = 2 },
		"another product":       func(c *Claims) { c.Product = "OtherOS" },
		"no product":            func(c *Claims) { c.Product = "" },
		"no cryptexes":          func(c *Claims) { c.Cryptexes = nil },
		"unsorted":              func(c *Claims) { slices.Reverse(c.Cryptexes) },
		"a name twice":          func(c *Claims) { c.Cryptexes[1].Name = "os" },
		"no seal":               func(c *Claims) { c.Cryptexes[0].Seal = [48]byte{} },
		"no root hash":          func(c *Claims) { c.Cryptexes[0].Root = [32]byte{} },
		"subtype 0":             func(c *Claims) { c.Cryptexes[0].Subtype = 0 },
		"a bad name":            func(c *Claims) { c.Cryptexes[0].Name = "a/b" },
		"a bad release":         func(c *Claims) { c.Release = "a/b" },
	} {
		c := example()
		edit(&c)
		if _, err := Issue(rand.Reader, a.leaf, c); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	broken := errors.New("the token was pulled out")
	leaf := &Leaf{failing{a.leafKey, broken}, a.leaf.cert, a.leaf.constraints}
	if _, err := Issue(rand.Reader, leaf, example()); !errors.Is(err, broken) {
		t.Errorf("a key that can't sign: %v", err)
	}
	if _, err := NewLeaf(a.rootKey, a.leaf.cert, a.root); err == nil {
		t.Error("a leaf with the key of another")
	}
	if _, err := NewLeaf(a.leafKey, a.leaf.cert, newAuthority(t, "other").root); err == nil {
		t.Error("a leaf of another root")
	}
}

type failing struct {
	crypto.Signer
	err error
}

func (f failing) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return nil, f.err
}

// TestIssueTogether uses one leaf from many goroutines, as a server does.
func TestIssueTogether(t *testing.T) {
	a := newAuthority(t, "test")
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			c := example()
			c.Device[0] = byte(i + 1)
			der, err := Issue(rand.Reader, a.leaf, c)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := Verify(der, a.root, expect(c)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

// TestIDSurvivesAnotherSignature: anybody can make a second valid signature
// out of one, so the file's digest identifies nothing, but ID does.
func TestIDSurvivesAnotherSignature(t *testing.T) {
	a := newAuthority(t, "test")
	c := example()
	a.leaf.key = a.leafKey.PrivateKey // signs with randomness
	one, two := mustParse(t, a.issue(t, c)), mustParse(t, a.issue(t, c))
	if bytes.Equal(one.Signature(), two.Signature()) || one.ID() != two.ID() {
		t.Error("two signatures must differ and the ids must not")
	}
}

func TestAuthentic(t *testing.T) {
	a, other := newAuthority(t, "test"), newAuthority(t, "other")
	tk := mustParse(t, a.issue(t, example()))
	if err := tk.Authentic(a.root); err != nil {
		t.Error(err)
	}
	for _, root := range []*x509.Certificate{other.root, a.leaf.cert, nil} {
		if err := tk.Authentic(root); fault.KindOf(err) != fault.Ticket {
			t.Errorf("under another root: %v", err)
		}
	}
	der := a.issue(t, example())
	nonce := example().Nonce
	changed := mustParse(t, flip(der, 8*bytes.Index(der, nonce[:])))
	if err := changed.Authentic(a.root); err == nil {
		t.Error("a changed ticket is authentic")
	}
}

func TestDescribe(t *testing.T) {
	a := newAuthority(t, "test")
	c := example()
	tk, err := Parse(a.issue(t, c))
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, f := range tk.Describe() {
		if f.Name == "" || f.Label == "" || f.Value == "" || f.Meaning == "" {
			t.Errorf("an empty part: %+v", f)
		}
		text += f.Name + " " + f.Label + " " + f.Value + "\n"
	}
	for _, want := range []string{
		fmt.Sprintf("UDID device %x\n", c.Device), "prod product ExampleOS\n", fmt.Sprintf("bdig baseline %x\n", c.Baseline),
		"rels release SI-2026-0007\n", fmt.Sprintf("cnch nonce %x\n", c.Nonce), "cx01.name cryptex web\n",
		fmt.Sprintf("cx01.DGST image %x\n", c.Cryptexes[1].Image), fmt.Sprintf("sv00.DGST seal %x\n", c.Cryptexes[0].Seal),
		fmt.Sprintf("sv00.root root hash %x\n", c.Cryptexes[0].Root), fmt.Sprintf("tc01.DGST trust cache %x\n", c.Cryptexes[1].TrustCache),
		`prod="ExampleOS"`, "cnch?", "2026-11-23T18:00:00Z",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if got := plain("a\x1b[31mb\u202ec"); got != "a\ufffd[31mb\ufffdc" {
		t.Errorf("plain: %q", got)
	}
	base, err := Parse(a.issue(t, baselineExample()))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(base.Describe()) == "" || strings.Contains(fmt.Sprint(base.Describe()), "cnch nonce") {
		t.Error("a baseline's ticket has no nonce")
	}
}

func FuzzParse(f *testing.F) {
	a := newAuthority(f, "test")
	der := a.issue(f, example())
	f.Add(der)
	f.Add(a.issue(f, baselineExample()))
	f.Fuzz(func(t *testing.T, in []byte) {
		tk, err := Parse(in)
		if err != nil {
			return
		}
		// What parses has one encoding, and issuing it gives that one.
		properties, objects := tk.Claims.format()
		signed, err := image4.FormatSigned(properties, objects)
		if err != nil || !bytes.Equal(signed, tk.Signed()) {
			t.Fatalf("encoded differently: %v", err)
		}
		again, err := image4.Format(signed, tk.Signature(), tk.Leaf.Raw)
		if err != nil || !bytes.Equal(again, in) {
			t.Fatalf("framed differently: %v", err)
		}
		tk.Describe()
		if _, err := Verify(in, a.root, expect(tk.Claims)); err == nil && !bytes.Equal(tk.Signed(), mustParse(t, der).Signed()) && !tk.OfBaseline() {
			t.Fatal("accepted something that was never signed")
		}
	})
}

func mustParse(t testing.TB, der []byte) *Ticket {
	t.Helper()
	tk, err := Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return tk
}

// BenchmarkBare is what a ticket can't be cheaper than: one P-384 signature,
// and one verification.
func BenchmarkBare(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	digest := sum("x")
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	b.Run("sign", func(b *testing.B) {
		for b.Loop() {
			if _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
				b.Fatal("wrong")
			}
		}
	})
}

func BenchmarkTicket(b *testing.B) {
	a := newAuthority(b, "test")
	// As a server has it: a key that signs with randomness.
	leaf := &Leaf{a.leafKey.PrivateKey, a.leaf.cert, a.leaf.constraints}
	c := example()
	der := a.issue(b, c)
	want := expect(c)
	b.Run("issue", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Issue(rand.Reader, leaf, c); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Parse(der); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Verify(der, a.root, want); err != nil {
				b.Fatal(err)
			}
		}
	})
}
