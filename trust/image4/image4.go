// Package image4 reads and writes Image4 manifests (IM4M): the signed
// statements that tickets are made of. It knows their encoding and nothing of
// their meaning, which is package ticket's; it holds no keys and checks no
// signature.
//
// The format is specified in spec/image4.md. A manifest is DER:
//
//	SEQUENCE {
//	  IA5String "IM4M", INTEGER 0,
//	  SET {                                          the signed part, header included
//	    [PRIVATE 'MANB'] SEQUENCE { IA5String "MANB", SET {
//	      [PRIVATE 'MANP'] SEQUENCE { IA5String "MANP", SET { property… } },
//	      [PRIVATE code]   SEQUENCE { IA5String code,   SET { property… } }…   one per object
//	    } } },
//	  OCTET STRING signature,
//	  SEQUENCE { certificate } }
//
//	property = [PRIVATE code] SEQUENCE { IA5String code, value }
//	value    = BOOLEAN | INTEGER (0 to 2^64-1) | OCTET STRING | NULL | SET { property… }
//
// A code is four printable ASCII characters; its private tag number is their
// big-endian value, so the tag is always the byte ff and five base-128 bytes.
//
// There is exactly one encoding of every manifest. Parse refuses all others:
// long lengths, long integers, unsorted or repeated members of a SET, an
// element of an unknown type, bytes left over at any level. So for everything
// that Parse accepts, Format gives the same bytes back, and a signature over
// the third element covers everything a caller can read out of it.
//
// What the caller must still check: the signature and the certificate, that
// every property and object is one it understands (a manifest has no optional
// content: what isn't understood must be refused), and the certificate's
// constraints (see Constraints).
package image4

import (
	"bytes"
	"fmt"
)

// Limits. They stand in the format: a manifest beyond them is refused by every
// implementation, before anything is allocated for it.
const (
	MaxSize        = 65535 // bytes of a whole manifest, and of a constraint set
	MaxDepth       = 4     // SETs inside SETs: manifest, MANB, object, one value
	MaxProperties  = 1024  // properties of a manifest at all levels, MANB and objects counted
	MaxOctets      = 4096  // bytes of one OCTET STRING value
	MaxSignature   = 1024  // bytes of the signature
	MaxCertificate = 8192  // bytes of the certificate
)

const (
	magic = "IM4M"
	body  = Code("MANB")
	own   = Code("MANP")
)

// Manifest is a parsed manifest. Its slices point into the bytes that Parse
// was given.
type Manifest struct {
	Properties  []Property // of the manifest itself (MANP), ascending by code
	Objects     []Object   // ascending by code
	Signature   []byte     // as it stands in the OCTET STRING
	Certificate []byte     // DER; only its outermost header was looked at

	signed []byte
}

// Object is one thing that a manifest speaks of.
type Object struct {
	Code       Code
	Properties []Property // ascending by code
}

// Signed returns the bytes that the signature covers: the complete encoding of
// the manifest's third element, its tag and length included.
func (m *Manifest) Signed() []byte { return m.signed }

// FormatSigned encodes the part of a manifest that is to be signed. Properties
// and objects may come in any order; an error means that a code is repeated or
// malformed, or that a limit is exceeded.
//
//	31 LEN  ff… LEN 30 LEN 16 04 "MANB" 31 LEN  { MANP, objects }
func FormatSigned(properties []Property, objects []Object) ([]byte, error) {
	members := make([]Property, 0, 1+len(objects))
	members = append(members, Property{own, Set(properties...)})
	for _, o := range objects {
		if o.Code == own {
			return nil, fmt.Errorf("cannot encode manifest: an object can't be called %s", own)
		}
		members = append(members, Property{o.Code, Set(o.Properties...)})
	}
	e := encoder{left: MaxProperties}
	if err := e.set([]Property{{body, Set(members...)}}, 1); err != nil {
		return nil, fmt.Errorf("cannot encode manifest: %w", err)
	}
	return e.bytes(), nil
}

// Format frames a signed part (as FormatSigned made it), its signature and the
// signer's certificate as a manifest.
//
//	30 LEN  16 04 "IM4M"  02 01 00  SIGNED  04 LEN signature  30 LEN certificate
func Format(signed, signature, certificate []byte) ([]byte, error) {
	switch {
	case len(signature) == 0 || len(signature) > MaxSignature:
		return nil, fmt.Errorf("cannot encode manifest: signature of %d bytes, 1 to %d are possible", len(signature), MaxSignature)
	case len(certificate) == 0 || len(certificate) > MaxCertificate:
		return nil, fmt.Errorf("cannot encode manifest: certificate of %d bytes, 1 to %d are possible", len(certificate), MaxCertificate)
	}
	content := make([]byte, 0, len(signed)+len(signature)+len(certificate)+32)
	content = appendElement(content, tagIA5String, []byte(magic))
	content = append(content, tagInteger, 1, 0)
	content = append(content, signed...)
	content = appendElement(content, tagOctets, signature)
	content = appendElement(content, tagSequence, certificate)
	if len(content) > MaxSize-4 {
		return nil, fmt.Errorf("cannot encode manifest: it would be larger than %d bytes", MaxSize)
	}
	return appendElement(make([]byte, 0, len(content)+4), tagSequence, content), nil
}

// Parse reads a manifest. Errors name the byte at which it stops being one.
func Parse(der []byte) (*Manifest, error) {
	if len(der) > MaxSize {
		return nil, fmt.Errorf("cannot read manifest: %d bytes, at most %d are possible", len(der), MaxSize)
	}
	d := &decoder{in: der, left: MaxProperties}
	m, err := d.manifest()
	if err != nil {
		return nil, fmt.Errorf("cannot read manifest: byte %d: %w", d.pos, err)
	}
	return m, nil
}

func (d *decoder) manifest() (*Manifest, error) {
	end, err := d.open(tagSequence, len(d.in))
	if err != nil {
		return nil, err
	}
	if end != len(d.in) {
		d.pos = end
		return nil, errTrailing
	}
	if err := d.literal(tagIA5String, []byte(magic), end); err != nil {
		return nil, err
	}
	if err := d.literal(tagInteger, []byte{0}, end); err != nil {
		return nil, err
	}
	m := new(Manifest)
	start := d.pos
	members, err := d.body(end)
	if err != nil {
		return nil, err
	}
	m.signed = d.in[start:d.pos:d.pos]
	if m.Properties, m.Objects, err = divide(members); err != nil {
		d.pos = start
		return nil, err
	}
	if m.Signature, err = d.element(tagOctets, 1, MaxSignature, end); err != nil {
		return nil, err
	}
	if m.Certificate, err = d.certificate(end); err != nil {
		return nil, err
	}
	if d.pos != end {
		return nil, errTrailing
	}
	return m, nil
}

// body reads the third element and returns the members of MANB.
func (d *decoder) body(limit int) ([]Property, error) {
	start := d.pos
	outer, err := d.set(limit, 1, false)
	if err != nil {
		return nil, err
	}
	if len(outer) == 1 && outer[0].Code == body {
		if members, ok := outer[0].Value.Set(); ok {
			return members, nil
		}
	}
	d.pos = start
	return nil, fmt.Errorf("the signed part is not a single %s", body)
}

// divide tells the manifest's own properties from its objects.
func divide(members []Property) (properties []Property, objects []Object, err error) {
	found := false
	for _, p := range members {
		set, ok := p.Value.Set()
		if !ok {
			return nil, nil, fmt.Errorf("%s is not a SET", p.Code)
		}
		if p.Code == own {
			found, properties = true, set
			continue
		}
		objects = append(objects, Object{p.Code, set})
	}
	if !found {
		return nil, nil, fmt.Errorf("there is no %s", own)
	}
	return properties, objects, nil
}

// certificate reads a SEQUENCE with exactly one SEQUENCE in it.
func (d *decoder) certificate(limit int) ([]byte, error) {
	end, err := d.open(tagSequence, limit)
	if err != nil {
		return nil, err
	}
	start := d.pos
	if d.pos, err = d.open(tagSequence, end); err != nil {
		return nil, err
	}
	if d.pos != end {
		return nil, fmt.Errorf("there is more than one certificate")
	}
	if end-start > MaxCertificate {
		return nil, fmt.Errorf("certificate of %d bytes, at most %d are possible", end-start, MaxCertificate)
	}
	return d.in[start:end:end], nil
}

// literal reads an element that can have only one content.
func (d *decoder) literal(tag byte, want []byte, limit int) error {
	start := d.pos
	got, err := d.element(tag, len(want), len(want), limit)
	if err == nil && !bytes.Equal(got, want) {
		d.pos = start
		err = fmt.Errorf("not an %s manifest of version 0", magic)
	}
	return err
}
