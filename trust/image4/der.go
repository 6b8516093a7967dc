package image4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
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

// privateTag is the tag that stands for a code.
func privateTag(c Code) [6]byte {
	n := uint32(c[0])<<24 | uint32(c[1])<<16 | uint32(c[2])<<8 | uint32(c[3])
	return [6]byte{tagPrivate, 0x80 | byte(n>>28), 0x80 | byte(n>>21), 0x80 | byte(n>>14), 0x80 | byte(n>>7), byte(n) & 0x7f}
}

// encoder writes from the end to the beginning: an element's content is there
// before its length is needed, and nothing is copied. It holds the same limits
// as the decoder.
type encoder struct {
	buf  []byte // what is written stands at its end
	at   int    // where that begins
	left int    // properties that may still come
	wild bool   // constraints are encoded
}

func (e *encoder) bytes() []byte { return e.buf[e.at:] }

// put writes b in front.
func (e *encoder) put(b ...byte) {
	if e.at < len(b) {
		used := len(e.buf) - e.at
		grown := make([]byte, 2*(used+len(b))+1024)
		e.at = len(grown) - used
		copy(grown[e.at:], e.buf[len(e.buf)-used:])
		e.buf = grown
	}
	e.at -= len(b)
	copy(e.buf[e.at:], b)
}

// close writes the length, and the identifier bytes, of a content that begins
// here and ends end bytes before the buffer's end.
func (e *encoder) close(end int, tag ...byte) error {
	n := len(e.buf) - end - e.at
	if n > MaxSize-4 {
		return fmt.Errorf("an element would be larger than %d bytes", MaxSize)
	}
	var length [3]byte
	e.put(appendLength(length[:0], n)...)
	e.put(tag...)
	return nil
}

func (e *encoder) set(all []Property, depth int) error {
	if depth > MaxDepth {
		return errDepth
	}
	byCode := func(a, b Property) int { return strings.Compare(string(a.Code), string(b.Code)) }
	if !slices.IsSortedFunc(all, byCode) {
		all = slices.SortedFunc(slices.Values(all), byCode)
	}
	end := len(e.buf) - e.at
	for i := len(all) - 1; i >= 0; i-- {
		if i > 0 && all[i-1].Code == all[i].Code {
			return fmt.Errorf("there are two properties called %s", all[i].Code)
		}
		if err := e.property(all[i], depth); err != nil {
			return err
		}
	}
	return e.close(end, tagSet)
}

func (e *encoder) property(p Property, depth int) error {
	if e.left--; e.left < 0 {
		return errCount
	}
	if !p.Code.valid() {
		return fmt.Errorf("%q: %w", string(p.Code), errCode)
	}
	end := len(e.buf) - e.at
	if err := e.value(p.Value, depth); err != nil {
		return fmt.Errorf("%s: %w", p.Code, err)
	}
	e.put(tagIA5String, 4, p.Code[0], p.Code[1], p.Code[2], p.Code[3])
	if err := e.close(end, tagSequence); err != nil {
		return err
	}
	tag := privateTag(p.Code)
	return e.close(end, tag[:]...)
}

func (e *encoder) value(v Value, depth int) error {
	end := len(e.buf) - e.at
	switch v.kind {
	case KindBool:
		e.put(tagBoolean, 1, byte(-int8(v.number&1)))
	case KindInteger:
		// One bit more than the number has keeps it positive.
		n := bits.Len64(v.number)/8 + 1
		var b [9]byte
		binary.BigEndian.PutUint64(b[1:], v.number)
		e.put(b[9-n:]...)
		return e.close(end, tagInteger)
	case KindOctets:
		if len(v.octets) > MaxOctets {
			return fmt.Errorf("%d bytes, at most %d are possible", len(v.octets), MaxOctets)
		}
		e.put(v.octets...)
		return e.close(end, tagOctets)
	case KindNull:
		e.put(tagNull, 0)
	case KindSet:
		return e.set(v.set, depth+1)
	case KindRequired, KindAllowed:
		if !e.wild || depth != constraintDepth {
			return fmt.Errorf("it can't have the value %v here", v)
		}
		e.put(tagRequired+byte(v.kind-KindRequired), 2, tagNull, 0)
	default:
		return errors.New("it has no value")
	}
	return nil
}
