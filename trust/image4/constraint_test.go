package image4

import (
	"bytes"
	"strings"
	"testing"
)

var rules = Constraints{
	Manifest: []Property{{"pinn", Uint(1)}, {"text", Text("ExampleOS")}, {"must", Required()}, {"may ", Allowed()}},
	Object:   []Property{{"DGST", Required()}, {"name", Allowed()}},
}

func TestConstraintsRoundTrip(t *testing.T) {
	der, err := rules.Format()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseConstraints(der)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Format()
	if err != nil || !bytes.Equal(again, der) {
		t.Errorf("another encoding: %x, %x", again, der)
	}
	if len(got.Manifest) != 4 || len(got.Object) != 2 {
		t.Errorf("got %v", got)
	}
	for n := range der {
		if _, err := ParseConstraints(der[:n:n]); err == nil {
			t.Errorf("accepted %d of %d bytes", n, len(der))
		}
	}
	if _, err := ParseConstraints(append(bytes.Clone(der), 0)); err == nil {
		t.Error("accepted an extra byte")
	}
	if _, err := ParseConstraints(make([]byte, MaxSize+1)); err == nil {
		t.Error("accepted too many bytes")
	}
}

func TestConstraintsRefused(t *testing.T) {
	group := func(groups ...Property) []byte {
		e := encoder{left: MaxProperties, wild: true}
		if err := e.set(groups, 1); err != nil {
			t.Fatal(err)
		}
		return e.bytes()
	}
	good, err := rules.Format()
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"empty":                group(),
		"MANP only":            group(Property{own, Set()}),
		"OBJP only":            group(Property{perObject, Set()}),
		"unknown group":        group(Property{own, Set()}, Property{perObject, Set()}, Property{"XXXX", Set()}),
		"another group":        group(Property{own, Set()}, Property{"OBJQ", Set()}),
		"group not a SET":      group(Property{own, Null()}, Property{perObject, Set()}),
		"[0] not NULL":         bytes.Replace(good, []byte{0xa0, 2, 5, 0}, []byte{0xa0, 2, 4, 0}, 1),
		"[0] primitive":        bytes.Replace(good, []byte{0xa0, 2, 5, 0}, []byte{0x80, 2, 5, 0}, 1),
		"[2]":                  bytes.Replace(good, []byte{0xa0, 2, 5, 0}, []byte{0xa2, 2, 5, 0}, 1),
		"a SEQUENCE":           append([]byte{0x30}, good[1:]...),
		"zeros":                unhex(t, "3130"+strings.Repeat("00", 48)),
		"wildcard in a SET":    wildDeep(t),
		"wildcard for a group": bytes.Replace(group(Property{own, Null()}, Property{perObject, Set()}), []byte{5, 0}, []byte{0xa1, 0}, 1),
	} {
		if c, err := ParseConstraints(der); err == nil {
			t.Errorf("%s: accepted as %v", name, c)
		}
	}
	for name, c := range map[string]Constraints{
		"twice":          {Manifest: []Property{{"aaaa", Null()}, {"aaaa", Required()}}},
		"no value":       {Manifest: []Property{{"aaaa", Value{}}}},
		"wild in a SET":  {Manifest: []Property{{"aaaa", Set(Property{"bbbb", Required()})}}},
		"malformed code": {Object: []Property{{"a", Required()}}},
	} {
		if _, err := c.Format(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

// wildDeep has [0] NULL one SET deeper than it may stand.
func wildDeep(t *testing.T) []byte {
	t.Helper()
	c := Constraints{Manifest: []Property{{"aaaa", Set(Property{"bbbb", Octets([]byte{5, 0})})}}}
	der, err := c.Format()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(der, []byte{4, 2, 5, 0}, []byte{0xa0, 2, 5, 0}, 1)
}

func TestConstraintsCheck(t *testing.T) {
	good := []Property{{"pinn", Uint(1)}, {"text", Text("ExampleOS")}, {"must", Null()}}
	with := func(p Property) []Property {
		var all []Property
		for _, q := range good {
			if q.Code != p.Code {
				all = append(all, q)
			}
		}
		if p.Value.Kind() != 0 {
			all = append(all, p)
		}
		return all
	}
	objects := func(properties ...Property) []Object {
		return []Object{{"cx00", []Property{{"DGST", Octets([]byte{1})}}}, {"cx01", properties}}
	}
	digest := Property{"DGST", Octets([]byte{1})}
	for _, c := range []struct {
		name       string
		properties []Property
		objects    []Object
		want       string // in the error; "" if it may be signed
	}{
		{"as it must be", good, objects(digest), ""},
		{"allowed one is there", with(Property{"may ", Uint(9)}), objects(digest, Property{"name", Text("x")}), ""},
		{"required one has another value", with(Property{"must", Uint(3)}), objects(digest), ""},
		{"no objects", good, nil, ""},
		{"pinned value differs", with(Property{"pinn", Uint(2)}), nil, "allows only 1"},
		{"pinned value of another type", with(Property{"pinn", Bool(true)}), nil, "allows only 1"},
		{"pinned text differs", with(Property{"text", Text("ExampleOT")}), nil, "allows only"},
		{"pinned one missing", with(Property{"pinn", Value{}}), nil, "is missing"},
		{"required one missing", with(Property{"must", Value{}}), nil, "is missing"},
		{"unmentioned one", with(Property{"more", Null()}), nil, "more is not mentioned"},
		{"object without digest", good, objects(), "object cx01: DGST is missing"},
		{"object with more", good, objects(digest, Property{"evil", Null()}), "object cx01: evil is not mentioned"},
	} {
		err := rules.Check(c.properties, c.objects)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := (Constraints{}).Check([]Property{{"aaaa", Null()}}, nil); err == nil {
		t.Error("no constraints allow nothing, yet something was accepted")
	}
}

func FuzzParseConstraints(f *testing.F) {
	der, err := rules.Format()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := ParseConstraints(der)
		if err != nil {
			return
		}
		again, err := c.Format()
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("encoded differently (%v):\n%x\n%x", err, der, again)
		}
	})
}
