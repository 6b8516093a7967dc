package image4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// Identifier bytes of the DER elements that a manifest is made of.
const (
	tagBoolean   = 0x01
	tagInteger   = 0x02
	tagOctets    = 0x04
	tagNull      = 0x05
	tagIA5String = 0x16
	tagSequence  = 0x30
	tagSet       = 0x31
	tagRequired  = 0xa0 // [0], in constraints only
	tagAllowed   = 0xa1 // [1], in constraints only
	tagPrivate   = 0xff // a private, constructed tag in high-tag form
)

// constraintDepth is the depth of the SETs in which [0] and [1] may stand.
const constraintDepth = 2

var (
	errTruncated = errors.New("it ends too early")
	errTrailing  = errors.New("there are extra bytes")
	errLength    = errors.New("a length is not in its shortest form")
	errCode      = errors.New("a code is not four printable characters")
	errInteger   = errors.New("an integer is negative, too large or not in its shortest form")
	errBoolean   = errors.New("a boolean is neither 00 nor ff")
	errOrder     = errors.New("a SET is not in ascending order without repetition")
	errDepth     = fmt.Errorf("there are more than %d SETs inside each other", MaxDepth)
	errCount     = fmt.Errorf("there are more than %d properties", MaxProperties)
)

// decoder walks over the input once. When a method returns an error, pos is
// where the trouble lies.
type decoder struct {
	in   []byte
	pos  int
	left int // properties that may still come
}

// length reads a length of at most two bytes and returns where the content
// ends.
//
//	00–7f          up to 127 bytes
//	81 80–ff       up to 255
//	82 0100–ffff   up to 65535
func (d *decoder) length(limit int) (end int, err error) {
	if d.pos >= limit {
		return 0, errTruncated
	}
	n, extra := int(d.in[d.pos]), 0
	if n >= 0x80 {
		extra = n - 0x80
		if extra < 1 || extra > 2 {
			return 0, errLength
		}
		if limit-d.pos-1 < extra {
			return 0, errTruncated
		}
		n = int(d.in[d.pos+1])
		if extra == 2 {
			n = n<<8 | int(d.in[d.pos+2])
		}
		if extra == 1 && n < 0x80 || extra == 2 && n < 0x100 {
			return 0, errLength
		}
	}
	if limit-d.pos-1-extra < n {
		return 0, errTruncated
	}
	d.pos += 1 + extra
	return d.pos + n, nil
}

// open reads an identifier byte and a length, and returns where the content
// ends; pos is then at its start.
func (d *decoder) open(tag byte, limit int) (end int, err error) {
	if d.pos >= limit {
		return 0, errTruncated
	}
	if d.in[d.pos] != tag {
		return 0, fmt.Errorf("there is an element of type %02x instead of %02x", d.in[d.pos], tag)
	}
	d.pos++
	return d.length(limit)
}

// element reads a whole element with a content of least to most bytes.
func (d *decoder) element(tag byte, least, most, limit int) ([]byte, error) {
	start := d.pos
	end, err := d.open(tag, limit)
	if err != nil {
		return nil, err
	}
	if n := end - d.pos; n < least || n > most {
		d.pos = start
		return nil, fmt.Errorf("an element of type %02x has %d bytes", tag, n)
	}
	content := d.in[d.pos:end:end]
	d.pos = end
	return content, nil
}

// private reads the tag that stands for a code.
//
//	ff  8x xx xx xx 0x-7x     the code's 32 bits, seven to a byte, the first byte 81 to 8f
func (d *decoder) private(limit int) (Code, error) {
	if limit-d.pos < 6 {
		return "", errTruncated
	}
	t := d.in[d.pos : d.pos+6]
	if t[0] != tagPrivate {
		return "", fmt.Errorf("there is an element of type %02x instead of a property", t[0])
	}
	if t[1] < 0x81 || t[1] > 0x8f || t[2]&t[3]&t[4] < 0x80 || t[5] >= 0x80 {
		return "", errCode
	}
	n := uint32(t[1]&0x0f)<<28 | uint32(t[2]&0x7f)<<21 | uint32(t[3]&0x7f)<<14 | uint32(t[4]&0x7f)<<7 | uint32(t[5])
	code := Code(binary.BigEndian.AppendUint32(nil, n))
	if !code.valid() {
		return "", errCode
	}
	d.pos += 6
	return code, nil
}

// property reads [PRIVATE code] SEQUENCE { IA5String code, value }.
func (d *decoder) property(limit, depth int, wild bool) (Property, error) {
	if d.left--; d.left < 0 {
		return Property{}, errCount
	}
	code, err := d.private(limit)
	if err != nil {
		return Property{}, err
	}
	outer, err := d.length(limit)
	if err != nil {
		return Property{}, err
	}
	end, err := d.open(tagSequence, outer)
	if err != nil {
		return Property{}, err
	}
	if end != outer {
		d.pos = end
		return Property{}, errTrailing
	}
	start := d.pos
	name, err := d.element(tagIA5String, 4, 4, end)
	if err != nil {
		return Property{}, err
	}
	if string(name) != string(code) {
		d.pos = start
		return Property{}, fmt.Errorf("the name of %s differs from its tag", code)
	}
	value, err := d.value(end, depth, wild)
	if err != nil {
		return Property{}, err
	}
	if d.pos != end {
		return Property{}, errTrailing
	}
	return Property{code, value}, nil
}

// value reads a property's value. Only constraints (wild) may have the values
// [0] NULL and [1] NULL.
func (d *decoder) value(limit, depth int, wild bool) (Value, error) {
	if d.pos >= limit {
		return Value{}, errTruncated
	}
	start := d.pos
	switch tag := d.in[d.pos]; {
	case tag == tagBoolean:
		b, err := d.element(tag, 1, 1, limit)
		if err != nil {
			return Value{}, err
		}
		if b[0] != 0 && b[0] != 0xff {
			d.pos = start
			return Value{}, errBoolean
		}
		return Bool(b[0] == 0xff), nil
	case tag == tagInteger:
		b, err := d.element(tag, 1, 9, limit)
		if err != nil {
			return Value{}, err
		}
		// A first byte of zero must be needed to keep the number positive,
		// and the ninth byte can be nothing else.
		if b[0] >= 0x80 || b[0] == 0 && len(b) > 1 && b[1] < 0x80 || len(b) == 9 && b[0] != 0 {
			d.pos = start
			return Value{}, errInteger
		}
		var n uint64
		for _, c := range b {
			n = n<<8 | uint64(c)
		}
		return Uint(n), nil
	case tag == tagOctets:
		b, err := d.element(tag, 0, MaxOctets, limit)
		return Octets(b), err
	case tag == tagNull:
		_, err := d.element(tag, 0, 0, limit)
		return Null(), err
	case tag == tagSet:
		set, err := d.set(limit, depth+1, wild && depth < constraintDepth)
		return Set(set...), err
	case wild && (tag == tagRequired || tag == tagAllowed):
		b, err := d.element(tag, 2, 2, limit)
		if err != nil {
			return Value{}, err
		}
		if b[0] != tagNull || b[1] != 0 {
			d.pos = start
			return Value{}, fmt.Errorf("[%d] is not NULL", tag&0x1f)
		}
		if tag == tagRequired {
			return Required(), nil
		}
		return Allowed(), nil
	default:
		return Value{}, fmt.Errorf("there is a value of the unknown type %02x", tag)
	}
}

// set reads a SET of properties. DER sorts a SET's members by their encoded
// bytes; these begin with a tag of fixed length that has the order of the
// codes, so ascending codes are both the order and the absence of repetition.
func (d *decoder) set(limit, depth int, wild bool) ([]Property, error) {
	if depth > MaxDepth {
		return nil, errDepth
	}
	end, err := d.open(tagSet, limit)
	if err != nil {
		return nil, err
	}
	var all []Property
	for d.pos < end {
		start := d.pos
		p, err := d.property(end, depth, wild)
		if err != nil {
			return nil, err
		}
		if len(all) > 0 && all[len(all)-1].Code >= p.Code {
			d.pos = start
			return nil, errOrder
		}
		all = append(all, p)
	}
	return all, nil
}

// appendLength adds the shortest form of a length up to 65535.
func appendLength(dst []byte, n int) []byte {
	switch {
	case n < 0x80:
		return append(dst, byte(n))
	case n < 0x100:
		return append(dst, 0x81, byte(n))
	default:
		return append(dst, 0x82, byte(n>>8), byte(n))
	}
}

// appendElement adds an identifier byte, a length and the content.
func appendElement(dst []byte, tag byte, content []byte) []byte {
	return append(appendLength(append(dst, tag), len(content)), content...)
}

// appendPrivate adds the tag that stands for a code.
func appendPrivate(dst []byte, c Code) []byte {
	n := binary.BigEndian.Uint32([]byte(c))
	return append(dst, tagPrivate, 0x80|byte(n>>28), 0x80|byte(n>>21), 0x80|byte(n>>14), 0x80|byte(n>>7), byte(n)&0x7f)
}

// encoder holds the same limits as the decoder.
type encoder struct {
	left int
	wild bool // constraints are encoded
}

func (e *encoder) set(all []Property, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, errDepth
	}
	sorted := slices.SortedFunc(slices.Values(all), func(a, b Property) int {
		return bytes.Compare([]byte(a.Code), []byte(b.Code))
	})
	var content []byte
	for i, p := range sorted {
		if i > 0 && sorted[i-1].Code == p.Code {
			return nil, fmt.Errorf("there are two properties called %s", p.Code)
		}
		one, err := e.property(p, depth)
		if err != nil {
			return nil, err
		}
		content = append(content, one...)
	}
	if len(content) > MaxSize {
		return nil, fmt.Errorf("a SET would be larger than %d bytes", MaxSize)
	}
	return appendElement(make([]byte, 0, len(content)+4), tagSet, content), nil
}

func (e *encoder) property(p Property, depth int) ([]byte, error) {
	if e.left--; e.left < 0 {
		return nil, errCount
	}
	if !p.Code.valid() {
		return nil, fmt.Errorf("%q: %w", string(p.Code), errCode)
	}
	value, err := e.value(p.Value, depth)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Code, err)
	}
	content := make([]byte, 0, 6+len(value))
	content = appendElement(content, tagIA5String, []byte(p.Code))
	content = append(content, value...)
	if len(content) > MaxSize-4 {
		return nil, fmt.Errorf("%s would be larger than %d bytes", p.Code, MaxSize)
	}
	sequence := appendElement(make([]byte, 0, len(content)+4), tagSequence, content)
	out := appendPrivate(make([]byte, 0, len(sequence)+10), p.Code)
	return append(appendLength(out, len(sequence)), sequence...), nil
}

func (e *encoder) value(v Value, depth int) ([]byte, error) {
	switch v.kind {
	case KindBool:
		return []byte{tagBoolean, 1, byte(-int8(v.number & 1))}, nil
	case KindInteger:
		// One bit more than the number has keeps it positive.
		n := bits.Len64(v.number)/8 + 1
		var b [9]byte
		binary.BigEndian.PutUint64(b[1:], v.number)
		return appendElement(nil, tagInteger, b[9-n:]), nil
	case KindOctets:
		if len(v.octets) > MaxOctets {
			return nil, fmt.Errorf("%d bytes, at most %d are possible", len(v.octets), MaxOctets)
		}
		return appendElement(nil, tagOctets, v.octets), nil
	case KindNull:
		return []byte{tagNull, 0}, nil
	case KindSet:
		return e.set(v.set, depth+1)
	case KindRequired, KindAllowed:
		if !e.wild || depth != constraintDepth {
			return nil, fmt.Errorf("it can't have the value %v here", v)
		}
		return []byte{tagRequired + byte(v.kind-KindRequired), 2, tagNull, 0}, nil
	default:
		return nil, errors.New("it has no value")
	}
}
