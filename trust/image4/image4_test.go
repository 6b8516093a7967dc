package image4

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"pgregory.net/rapid"
)

// fake is a certificate's outermost shape; this package looks no deeper.
var fake = []byte{0x30, 0x03, 0x02, 0x01, 0x2a}

func format(t testing.TB, properties []Property, objects []Object) []byte {
	t.Helper()
	signed, err := FormatSigned(properties, objects)
	if err != nil {
		t.Fatal(err)
	}
	der, err := Format(signed, []byte("signature"), fake)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// example has every kind of value.
func example(t testing.TB) []byte {
	return format(t, []Property{
		{"zero", Uint(0)},
		{"long", Octets(bytes.Repeat([]byte{0xab}, 300))},
		{"most", Uint(1<<64 - 1)},
		{"BIT7", Uint(127)},
		{"BIT8", Uint(128)},
		{"true", Bool(true)},
		{"fals", Bool(false)},
		{"null", Null()},
		{"text", Text("ExampleOS")},
		{"none", Octets(nil)},
		{"set ", Set(Property{"two ", Uint(2)}, Property{"one ", Uint(1)})},
	}, []Object{
		{"web1", []Property{{"DGST", Octets(bytes.Repeat([]byte{7}, 48))}}},
		{"cx00", nil},
	})
}

func TestRoundTrip(t *testing.T) {
	der := example(t)
	m, err := Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(der, m.Signed()) || m.Signed()[0] != 0x31 {
		t.Error("Signed is not the SET with its header")
	}
	var codes []string
	for _, p := range m.Properties {
		codes = append(codes, string(p.Code)+"="+p.Value.String())
	}
	want := `BIT7=127 BIT8=128 fals=false long=` + strings.Repeat("ab", 300) +
		` most=18446744073709551615 none= null=NULL set ={ one =1 two =2 } text="ExampleOS" true=true zero=0`
	if got := strings.Join(codes, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(m.Objects) != 2 || m.Objects[0].Code != "cx00" || m.Objects[1].Code != "web1" {
		t.Errorf("objects: %v", m.Objects)
	}
	if string(m.Signature) != "signature" || !bytes.Equal(m.Certificate, fake) {
		t.Error("signature or certificate differ")
	}
	reformat(t, der, m)
}

// reformat checks the rule of the format: what parses has no other encoding.
func reformat(t testing.TB, der []byte, m *Manifest) {
	t.Helper()
	signed, err := FormatSigned(m.Properties, m.Objects)
	if err != nil {
		t.Fatalf("parsed but can't be encoded: %v\n%x", err, der)
	}
	again, err := Format(signed, m.Signature, m.Certificate)
	if err != nil || !bytes.Equal(again, der) || !bytes.Equal(signed, m.Signed()) {
		t.Fatalf("encoded differently (%v):\n%x\n%x", err, der, again)
	}
}

// TestGolden holds the bytes themselves, written by hand from spec/image4.md.
func TestGolden(t *testing.T) {
	want := strings.Join([]string{
		"30 50",
		"16 04 49 4d 34 4d", "02 01 00",
		"31 33 ff 84 ea 85 9c 42 2c 30 2a 16 04 4d 41 4e 42",
		"31 22 ff 84 ea 85 9c 50 1b 30 19 16 04 4d 41 4e 50",
		"31 11 ff 86 f3 bd dc 4d 0a 30 08 16 04 6e 6f 6e 4d 05 00",
		"04 09 73 69 67 6e 61 74 75 72 65",
		"30 05 30 03 02 01 2a",
	}, " ")
	der := format(t, []Property{{"nonM", Null()}}, nil)
	raw, err := hex.DecodeString(strings.ReplaceAll(want, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(der, raw) {
		t.Errorf("got  %x\nwant %x", der, raw)
	}
}

// encodings takes a good manifest apart into text and changes one thing at a
// time. LEN fields are fixed up where the change is not about them, so each
// case reaches the check it is about.
func encodings() (accepted, refused map[string]string) {
	prop := func(code, value string) string {
		c := Code(code)
		name := tlv("16", hex.EncodeToString([]byte(c)))
		return tlv(hexTag(c), tlv("30", name+value))
	}
	set := func(members ...string) string { return tlv("31", strings.Join(members, "")) }
	manb := func(members ...string) string { return set(prop("MANB", set(members...))) }
	manp := func(values ...string) string { return prop("MANP", set(values...)) }
	whole := func(parts ...string) string { return tlv("30", strings.Join(parts, "")) }
	const head, signature, certificate = "1604494d344d" + "020100", "040107", "30053003020100"
	body := func(signed string) string { return whole(head, signed, signature, certificate) }
	value := func(v string) string { return body(manb(manp(prop("valu", v)))) }
	good := manb(manp())

	accepted = map[string]string{"smallest": body(good)}
	for _, v := range []string{"0101ff", "010100", "020100", "02017f", "02020080", "020900ffffffffffffffff", "0400", "0500", "3100"} {
		accepted["value "+v] = value(v)
	}

	nameless := tlv("ff86f6d8ea75", tlv("30", "0500")) // tag "vluu", no name
	refused = map[string]string{
		"nothing":                      "",
		"one byte":                     "30",
		"empty":                        "3000",
		"another type":                 "31" + body(good)[2:],
		"trailing byte":                body(good) + "00",
		"trailing element":             whole(head, good, signature, certificate, "0500"),
		"long length":                  "3081" + body(good)[2:],
		"indefinite length":            "3080" + body(good)[4:] + "0000",
		"length of four bytes":         "3084000000" + body(good)[2:],
		"reserved length":              "30ff" + body(good)[4:],
		"magic":                        whole("1604494d3450"+"020100", good, signature, certificate),
		"magic as UTF8String":          whole("0c04494d344d"+"020100", good, signature, certificate),
		"version 1":                    whole("1604494d344d"+"020101", good, signature, certificate),
		"version long":                 whole("1604494d344d"+"02020000", good, signature, certificate),
		"no signed part":               whole(head, signature, certificate),
		"signed part a SEQUENCE":       whole(head, "30"+good[2:], signature, certificate),
		"no MANB":                      body(set()),
		"MANB twice":                   body(set(prop("MANB", set(manp())), prop("MANB", set(manp())))),
		"MANB and more":                body(set(prop("MANB", set(manp())), prop("MANC", set()))),
		"MANB called MANC":             body(set(prop("MANC", set(manp())))),
		"MANB not a SET":               body(set(prop("MANB", "0500"))),
		"no MANP":                      body(manb(prop("cx00", set()))),
		"MANP not a SET":               body(manb(prop("MANP", "0500"))),
		"object not a SET":             body(manb(manp(), prop("cx00", "020100"))),
		"objects unsorted":             body(manb(prop("cx00", set()), manp())),
		"object twice":                 body(manb(manp(), prop("cx00", set()), prop("cx00", set()))),
		"properties unsorted":          body(manb(manp(prop("bbbb", "0500"), prop("aaaa", "0500")))),
		"property twice":               body(manb(manp(prop("aaaa", "0500"), prop("aaaa", "020101")))),
		"name differs from tag":        body(manb(manp(tlv(hexTag("aaaa"), tlv("30", tlv("16", "61616162")+"0500"))))),
		"no name":                      body(manb(manp(nameless))),
		"name of five":                 body(manb(manp(tlv(hexTag("aaaa"), tlv("30", tlv("16", "6161616161")+"0500"))))),
		"name OCTET STRING":            body(manb(manp(tlv(hexTag("aaaa"), tlv("30", tlv("04", "61616161")+"0500"))))),
		"two values":                   value("05000500"),
		"no value":                     value(""),
		"extra after sequence":         body(manb(manp(tlv(hexTag("aaaa"), tlv("30", tlv("16", "61616161")+"0500")+"0500")))),
		"code not printable":           body(manb(manp(tlv("ff818080800a", tlv("30", tlv("16", "1000000a")+"0500"))))),
		"tag in six bytes":             body(manb(manp(tlv("ff8086b0e1c261", tlv("30", tlv("16", "61616161")+"0500"))))),
		"tag short of five":            body(manb(manp(tlv("ffb0e1c261", tlv("30", tlv("16", "06161616")+"0500"))))),
		"tag of 36 bits":               body(manb(manp(tlv("ff9680808020", tlv("30", tlv("16", "61616161")+"0500"))))),
		"tag primitive":                body(manb(manp("df" + prop("aaaa", "0500")[2:]))),
		"tag application":              body(manb(manp("7f" + prop("aaaa", "0500")[2:]))),
		"tag context":                  body(manb(manp("bf" + prop("aaaa", "0500")[2:]))),
		"low private tag":              body(manb(manp(tlv("e1", tlv("30", tlv("16", "61616161")+"0500"))))),
		"boolean 01":                   value("010101"),
		"boolean empty":                value("0100"),
		"boolean of two":               value("0102ffff"),
		"integer empty":                value("0200"),
		"integer negative":             value("0201ff"),
		"integer padded":               value("0202007f"),
		"integer padded zero":          value("02020000"),
		"integer of 65 bits":           value("0209010000000000000000"),
		"integer of ten bytes":         value("020a00ffffffffffffffffff"),
		"octets in parts":              value("2405040101040102"),
		"octets, long length":          value("04810101"),
		"octets, length 0x00ff":        value("048200ff" + strings.Repeat("00", 255)),
		"null with content":            value("050100"),
		"UTF8String":                   value("0c0141"),
		"SEQUENCE":                     value("3000"),
		"OBJECT IDENTIFIER":            value("060103"),
		"[0] NULL, a constraint":       value("a0020500"),
		"[1] NULL, a constraint":       value("a1020500"),
		"nested set unsorted":          value(set(prop("bbbb", "0500"), prop("aaaa", "0500"))),
		"five sets":                    value(set(prop("aaaa", set()))),
		"no signature":                 whole(head, good, certificate),
		"empty signature":              whole(head, good, "0400", certificate),
		"signature a BIT STRING":       whole(head, good, "03020007", certificate),
		"no certificate":               whole(head, good, signature),
		"empty certificates":           whole(head, good, signature, "3000"),
		"two certificates":             whole(head, good, signature, "300a"+"3003020100"+"3003020100"),
		"certificate not a SEQUENCE":   whole(head, good, signature, "3002"+"0500"),
		"certificate and a byte":       whole(head, good, signature, "3006"+"3003020100"+"00"),
		"child longer than parent":     strings.Replace(body(good), "30053003020100", "30053004020100", 1),
		"certificates, long length":    whole(head, good, signature, "308105"+"3003020100"),
		"certificate, long length":     whole(head, good, signature, "3006"+"308103020100"),
		"octets too long":              value(tlv("04", strings.Repeat("00", MaxOctets+1))),
		"signature too long":           whole(head, good, tlv("04", strings.Repeat("00", MaxSignature+1)), certificate),
		"certificate too long":         whole(head, good, signature, tlv("30", tlv("30", strings.Repeat("00", MaxCertificate+1)))),
		"length beyond the end":        "30820fff" + body(good)[4:],
		"two manifests":                body(good) + body(good),
		"first byte of length only":    "3082",
		"high tag where a SET belongs": whole(head, "3f31"+good[2:], signature, certificate),
	}
	return accepted, refused
}

var write = flag.Bool("write", false, "write the vectors of spec/vectors/image4 anew")

// TestVectors judges spec/vectors/image4/manifests.txt, which has these
// encodings and the example, for other implementations.
func TestVectors(t *testing.T) {
	const file = "../../spec/vectors/image4/manifests.txt"
	accepted, refused := encodings()
	accepted["every kind of value"] = hex.EncodeToString(example(t))
	var made strings.Builder
	for _, group := range []struct {
		expect string
		cases  map[string]string
	}{{"ok", accepted}, {"refused", refused}} {
		for _, name := range slices.Sorted(maps.Keys(group.cases)) {
			fmt.Fprintf(&made, "comment: %s\nexpect: %s\nmanifest: %s\n\n", name, group.expect, group.cases[name])
		}
	}
	if *write {
		if err := os.WriteFile(file, []byte(made.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil || string(text) != made.String() {
		t.Fatalf("the file is not what this test makes: %v", err)
	}
	for block := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n\n"), "\n\n") {
		var comment, expect, manifest string
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			*map[string]*string{"comment": &comment, "expect": &expect, "manifest": &manifest}[key] = value
		}
		der := unhex(t, manifest)
		m, err := Parse(der)
		switch {
		case expect == "ok" && err != nil:
			t.Errorf("%s: %v", comment, err)
		case expect == "ok":
			reformat(t, der, m)
		case err == nil:
			t.Errorf("%s: accepted: %+v", comment, m)
		case !strings.HasPrefix(err.Error(), "cannot read manifest: "):
			t.Errorf("%s: %v", comment, err)
		}
	}
}

func hexTag(c Code) string {
	tag := privateTag(c)
	return hex.EncodeToString(tag[:])
}

// tlv makes an element in hexadecimal with the right length.
func tlv(tag, content string) string {
	return tag + hex.EncodeToString(appendLength(nil, len(content)/2)) + content
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTruncatedAndExtended cuts the example after every byte and lengthens it.
func TestTruncatedAndExtended(t *testing.T) {
	der := example(t)
	for n := range der {
		if _, err := Parse(der[:n:n]); err == nil {
			t.Errorf("accepted %d of %d bytes", n, len(der))
		}
	}
	for b := range 256 {
		if _, err := Parse(append(der[:len(der):len(der)], byte(b))); err == nil {
			t.Errorf("accepted with an extra byte %02x", b)
		}
	}
}

// TestOneEncoding changes every bit: what still parses says something else,
// and is the only encoding of what it says.
func TestOneEncoding(t *testing.T) {
	der := example(t)
	for i := range 8 * len(der) {
		other := bytes.Clone(der)
		other[i/8] ^= 1 << (i % 8)
		if m, err := Parse(other); err == nil {
			reformat(t, other, m)
		}
	}
}

func TestLimits(t *testing.T) {
	many := func(n int) []Property {
		all := make([]Property, n)
		for i := range all {
			all[i] = Property{Code(fmt.Sprintf("%04d", i)), Null()}
		}
		return all
	}
	// MANB and MANP count too.
	der := format(t, many(MaxProperties-2), nil)
	if _, err := Parse(der); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := FormatSigned(many(MaxProperties-1), nil); err == nil {
		t.Error("encoded one property too many")
	}
	deep := Null()
	for range MaxDepth - 3 {
		deep = Set(Property{"deep", deep})
	}
	if _, err := Parse(format(t, []Property{{"deep", deep}}, nil)); err != nil {
		t.Errorf("at the greatest depth: %v", err)
	}
	if _, err := FormatSigned([]Property{{"deep", Set(Property{"deep", deep})}}, nil); err == nil {
		t.Error("encoded one SET too deep")
	}
	large := make([]Property, 16)
	for i := range large {
		large[i] = Property{Code(fmt.Sprintf("%04d", i)), Octets(make([]byte, MaxOctets))}
	}
	if signed, err := FormatSigned(large, nil); err == nil {
		if _, err = Format(signed, []byte{1}, fake); err == nil {
			t.Error("encoded more than MaxSize")
		}
	}
	signed, _ := FormatSigned(nil, nil)
	for name, err := range map[string]error{
		"huge input":        second(Parse(make([]byte, MaxSize+1))),
		"empty signature":   second(Format(signed, nil, fake)),
		"long signature":    second(Format(signed, make([]byte, MaxSignature+1), fake)),
		"no certificate":    second(Format(signed, []byte{1}, nil)),
		"huge certificate":  second(Format(signed, []byte{1}, make([]byte, MaxCertificate+1))),
		"code of three":     second(FormatSigned([]Property{{"abc", Null()}}, nil)),
		"code with a tab":   second(FormatSigned([]Property{{"abc\t", Null()}}, nil)),
		"code beyond ASCII": second(FormatSigned([]Property{{"abé", Null()}}, nil)),
		"code twice":        second(FormatSigned([]Property{{"abcd", Null()}, {"abcd", Uint(1)}}, nil)),
		"object MANP":       second(FormatSigned(nil, []Object{{"MANP", nil}})),
		"no value":          second(FormatSigned([]Property{{"abcd", Value{}}}, nil)),
		"wildcard":          second(FormatSigned([]Property{{"abcd", Required()}}, nil)),
		"octets too long":   second(FormatSigned([]Property{{"abcd", Octets(make([]byte, MaxOctets+1))}}, nil)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestBombs hands over inputs that are small and claim to be large or deep.
func TestBombs(t *testing.T) {
	bombs := [][]byte{
		bytes.Repeat([]byte{0x31, 0x80}, MaxSize/2),
		bytes.Repeat([]byte{0x30, 0x82, 0xff, 0xff}, MaxSize/4),
		bytes.Repeat([]byte{0xff}, MaxSize),
	}
	for _, b := range bombs {
		if testing.AllocsPerRun(1, func() { _, _ = Parse(b) }) > 20 {
			t.Error("a bomb made the parser allocate")
		}
	}
}

// TestOtherReaders reads the example with the standard library's decoder and
// with an independent one: both must see the same tree.
func TestOtherReaders(t *testing.T) {
	der := example(t)
	m, err := Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	var frame struct {
		Magic        string `asn1:"ia5"`
		Version      int
		Signed       asn1.RawValue
		Signature    []byte
		Certificates []asn1.RawValue
	}
	if rest, err := asn1.Unmarshal(der, &frame); err != nil || len(rest) != 0 {
		t.Fatalf("encoding/asn1: %v", err)
	}
	if frame.Magic != "IM4M" || frame.Version != 0 || !bytes.Equal(frame.Signed.FullBytes, m.Signed()) ||
		!bytes.Equal(frame.Signature, m.Signature) || len(frame.Certificates) != 1 || !bytes.Equal(frame.Certificates[0].FullBytes, m.Certificate) {
		t.Errorf("encoding/asn1 reads something else: %+v", frame)
	}
	packet, err := ber.DecodePacketErr(der)
	if err != nil || len(packet.Children) != 5 {
		t.Fatalf("asn1-ber: %v", err)
	}
	manb := packet.Children[2].Children[0]
	objects := manb.Children[0].Children[1].Children
	if len(objects) != 1+len(m.Objects) {
		t.Fatalf("asn1-ber sees %d members", len(objects))
	}
	for i, o := range objects {
		code, properties := own, m.Properties
		if i > 0 {
			code, properties = m.Objects[i-1].Code, m.Objects[i-1].Properties
		}
		if o.ClassType != ber.ClassPrivate || Code(o.Children[0].Children[0].ByteValue) != code || string(appendCode(uint32(o.Tag))) != string(code) {
			t.Errorf("asn1-ber reads another object: %v, %s", o.Tag, code)
		}
		members := o.Children[0].Children[1].Children
		if len(members) != len(properties) {
			t.Fatalf("%s: asn1-ber sees %d properties", code, len(members))
		}
		for j, p := range members {
			if string(appendCode(uint32(p.Tag))) != string(properties[j].Code) {
				t.Errorf("asn1-ber reads %v instead of %s", p.Tag, properties[j].Code)
			}
			if b, ok := properties[j].Value.Octets(); ok && !bytes.Equal(p.Children[0].Children[1].Data.Bytes(), b) {
				t.Errorf("asn1-ber reads another value of %s", properties[j].Code)
			}
		}
	}
}

func appendCode(n uint32) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }

// TestAnyManifest makes random manifests: they come back as they were, however
// they were ordered, and encoding/asn1 can walk over them.
func TestAnyManifest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		properties := rapid.Custom(func(t *rapid.T) []Property { return drawSet(t, 2) }).Draw(t, "properties")
		var objects []Object
		for _, p := range drawSet(t, 0) {
			if p.Code != own {
				objects = append(objects, Object{p.Code, drawSet(t, 2)})
			}
		}
		signed, err := FormatSigned(properties, objects)
		if err != nil {
			t.Fatal(err)
		}
		der, err := Format(signed, rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "signature"), fake)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Parse(der)
		if err != nil {
			t.Fatal(err)
		}
		if !Set(m.Properties...).Equal(Set(sorted(properties)...)) || len(m.Objects) != len(objects) {
			t.Fatalf("%v became %v", properties, m.Properties)
		}
		var all asn1.RawValue
		if rest, err := asn1.Unmarshal(der, &all); err != nil || len(rest) != 0 {
			t.Fatalf("encoding/asn1: %v", err)
		}
	})
}

func drawSet(t *rapid.T, deep int) []Property {
	codes := rapid.SliceOfNDistinct(rapid.StringMatching(`[ -~]{4}`), 0, 6, rapid.ID).Draw(t, "codes")
	var all []Property
	for _, c := range codes {
		var v Value
		switch k := rapid.IntRange(0, 4).Draw(t, "kind"); {
		case k == 0:
			v = Uint(rapid.Uint64().Draw(t, "n"))
		case k == 1:
			v = Octets(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "octets"))
		case k == 2:
			v = Bool(rapid.Bool().Draw(t, "b"))
		case k == 3 && deep > 1:
			v = Set(drawSet(t, deep-1)...)
		default:
			v = Null()
		}
		all = append(all, Property{Code(c), v})
	}
	return all
}

// sorted is the order that DER demands, by the members' encoded bytes.
func sorted(all []Property) []Property {
	m, err := FormatSigned(all, nil)
	if err != nil {
		panic(err)
	}
	der, _ := Format(m, []byte{1}, fake)
	parsed, err := Parse(der)
	if err != nil {
		panic(err)
	}
	encoded := func(p Property) []byte {
		e := encoder{left: MaxProperties}
		if err := e.property(p, 1); err != nil {
			panic(err)
		}
		return e.bytes()
	}
	for i := 1; i < len(parsed.Properties); i++ {
		if bytes.Compare(encoded(parsed.Properties[i-1]), encoded(parsed.Properties[i])) >= 0 {
			panic("not in the order of encoded bytes")
		}
	}
	return parsed.Properties
}

func FuzzParse(f *testing.F) {
	f.Add(example(f))
	f.Add(format(f, nil, nil))
	f.Add([]byte{0x30, 0x82, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, der []byte) {
		m, err := Parse(der)
		if err != nil {
			return
		}
		reformat(t, der, m)
	})
}
