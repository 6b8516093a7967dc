package image4

import "fmt"

// Constraints say what the holder of a certificate may sign. They stand in the
// certificate's critical extension, encoded with the same properties:
//
//	SET { [PRIVATE 'MANP'] SEQUENCE { IA5String "MANP", SET { property… } },
//	      [PRIVATE 'OBJP'] SEQUENCE { IA5String "OBJP", SET { property… } } }
//
// A property's value pins it: the manifest must have exactly that value.
// [0] NULL (a0 02 05 00) requires the property, [1] NULL (a1 02 05 00) allows
// it. A property that isn't mentioned is forbidden.
type Constraints struct {
	Manifest []Property // on the manifest's own properties (MANP)
	Object   []Property // on the properties of each of its objects (OBJP)
}

const perObject = Code("OBJP")

// Format encodes the constraints: the content of the certificate's extension.
func (c Constraints) Format() ([]byte, error) {
	e := encoder{left: MaxProperties, wild: true}
	if err := e.set([]Property{{own, Set(c.Manifest...)}, {perObject, Set(c.Object...)}}, 1); err != nil {
		return nil, fmt.Errorf("cannot encode constraints: %w", err)
	}
	return e.bytes(), nil
}

// ParseConstraints reads what Format wrote, as strictly as Parse does.
func ParseConstraints(der []byte) (Constraints, error) {
	if len(der) > MaxSize {
		return Constraints{}, fmt.Errorf("cannot read constraints: %d bytes, at most %d are possible", len(der), MaxSize)
	}
	d := &decoder{in: der, left: MaxProperties}
	groups, err := d.set(len(der), 1, true)
	if err == nil && d.pos != len(der) {
		err = errTrailing
	}
	if err != nil {
		return Constraints{}, fmt.Errorf("cannot read constraints: byte %d: %w", d.pos, err)
	}
	if len(groups) != 2 || groups[0].Code != own || groups[1].Code != perObject {
		return Constraints{}, fmt.Errorf("cannot read constraints: they are not exactly %s and %s", own, perObject)
	}
	manifest, ok1 := groups[0].Value.Set()
	object, ok2 := groups[1].Value.Set()
	if !ok1 || !ok2 {
		return Constraints{}, fmt.Errorf("cannot read constraints: %s and %s must be SETs", own, perObject)
	}
	return Constraints{manifest, object}, nil
}

// Check says why a manifest with these properties and objects may not be
// signed under the constraints; nil if it may.
func (c Constraints) Check(properties []Property, objects []Object) error {
	if err := check(c.Manifest, properties); err != nil {
		return err
	}
	for _, o := range objects {
		if err := check(c.Object, o.Properties); err != nil {
			return fmt.Errorf("object %s: %w", o.Code, err)
		}
	}
	return nil
}

func check(rules, properties []Property) error {
	for _, r := range rules {
		v, ok := Find(properties, r.Code)
		switch {
		case r.Value.kind == KindAllowed:
		case !ok:
			return fmt.Errorf("%s is missing, the certificate requires it", r.Code)
		case r.Value.kind != KindRequired && !r.Value.Equal(v):
			return fmt.Errorf("%s is %v, the certificate allows only %v", r.Code, v, r.Value)
		}
	}
	for _, p := range properties {
		if _, ok := Find(rules, p.Code); !ok {
			return fmt.Errorf("%s is not mentioned by the certificate", p.Code)
		}
	}
	return nil
}
