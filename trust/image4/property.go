package image4

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strconv"
)

// Code is the four-character code that names a property or an object.
type Code string

func (c Code) valid() bool {
	if len(c) != 4 {
		return false
	}
	for i := range len(c) {
		if c[i] < ' ' || c[i] > '~' {
			return false
		}
	}
	return true
}

// Property is a named value.
type Property struct {
	Code  Code
	Value Value
}

// Find returns the value of a property, and whether there is one.
func Find(properties []Property, c Code) (Value, bool) {
	for _, p := range properties {
		if p.Code == c {
			return p.Value, true
		}
	}
	return Value{}, false
}

// Kind says what sort of value a Value is. The zero Kind is no value.
type Kind uint8

// The kinds of values. The last two occur in constraints only.
const (
	KindBool     Kind = iota + 1
	KindInteger       // unsigned, 64 bits
	KindOctets        // bytes; text is octets too
	KindNull          // present, and that is all
	KindSet           // properties
	KindRequired      // a constraint: the property must be there, with any value
	KindAllowed       // a constraint: the property may be there, with any value
)

var kindNames = [...]string{"nothing", "BOOLEAN", "INTEGER", "OCTET STRING", "NULL", "SET", "required", "allowed"}

func (k Kind) String() string { return kindNames[k] }

// Value is a property's value. The zero Value is none and can't be encoded.
type Value struct {
	kind   Kind
	number uint64
	octets []byte
	set    []Property
}

// Bool makes a BOOLEAN.
func Bool(b bool) Value {
	v := Value{kind: KindBool}
	if b {
		v.number = 1
	}
	return v
}

// Uint makes an INTEGER.
func Uint(n uint64) Value { return Value{kind: KindInteger, number: n} }

// Octets makes an OCTET STRING; it keeps b.
func Octets(b []byte) Value { return Value{kind: KindOctets, octets: b} }

// Text makes an OCTET STRING, which is how manifests hold text.
func Text(s string) Value { return Octets([]byte(s)) }

// Null makes a NULL.
func Null() Value { return Value{kind: KindNull} }

// Set makes a SET of properties.
func Set(properties ...Property) Value { return Value{kind: KindSet, set: properties} }

// Required makes a constraint: the property must be there.
func Required() Value { return Value{kind: KindRequired} }

// Allowed makes a constraint: the property may be there.
func Allowed() Value { return Value{kind: KindAllowed} }

// Kind is the sort of the value.
func (v Value) Kind() Kind { return v.kind }

// Bool returns a BOOLEAN's value; ok is false if it is no BOOLEAN.
func (v Value) Bool() (b, ok bool) { return v.number == 1, v.kind == KindBool }

// Uint returns an INTEGER's value; ok is false if it is no INTEGER.
func (v Value) Uint() (n uint64, ok bool) { return v.number, v.kind == KindInteger }

// Octets returns an OCTET STRING's bytes; ok is false if it is none.
func (v Value) Octets() (b []byte, ok bool) { return v.octets, v.kind == KindOctets }

// Set returns a SET's properties; ok is false if it is none.
func (v Value) Set() (properties []Property, ok bool) { return v.set, v.kind == KindSet }

// Equal says whether two values have the same encoding.
func (v Value) Equal(w Value) bool {
	return v.kind == w.kind && v.number == w.number && bytes.Equal(v.octets, w.octets) &&
		slices.EqualFunc(v.set, w.set, func(a, b Property) bool { return a.Code == b.Code && a.Value.Equal(b.Value) })
}

// String shows the value to a person: octets that are printable text are
// quoted, others are in hexadecimal.
func (v Value) String() string {
	switch v.kind {
	case KindBool:
		return strconv.FormatBool(v.number == 1)
	case KindInteger:
		return strconv.FormatUint(v.number, 10)
	case KindOctets:
		if len(v.octets) > 0 && !bytes.ContainsFunc(v.octets, func(r rune) bool { return r < ' ' || r > '~' }) {
			return strconv.Quote(string(v.octets))
		}
		return hex.EncodeToString(v.octets)
	case KindSet:
		var b bytes.Buffer
		b.WriteString("{")
		for _, p := range v.set {
			b.WriteString(" " + string(p.Code) + "=" + p.Value.String())
		}
		b.WriteString(" }")
		return b.String()
	default:
		return v.kind.String()
	}
}
