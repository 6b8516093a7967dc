// Package layout tells where the running kernel keeps the fields of its
// structures, from the kernel's description of its own types (BTF). BPF programs
// that are put together with these numbers fit every kernel that describes
// itself, without a compiler.
//
// What a kernel doesn't have is btf.ErrNotFound; one without BTF
// (CONFIG_DEBUG_INFO_BTF) has nothing at all.
package layout

import (
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/cilium/ebpf/btf"
)

// Kernel is the running kernel's description of its types.
type Kernel struct {
	spec *btf.Spec
	errs error
}

// Running reads the running kernel's types.
func Running() (*Kernel, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("cannot read the kernel's types: %w", err)
	}
	return &Kernel{spec: spec}, nil
}

// Missing reports whether an error says that the kernel doesn't describe its
// types, or has no such type or field.
func Missing(err error) bool {
	return errors.Is(err, btf.ErrNotFound) || errors.Is(err, btf.ErrNotSupported) || errors.Is(err, os.ErrNotExist)
}

// Err is the first failure of a Field, nil if there was none.
func (k *Kernel) Err() error { return k.errs }

// Field is how many bytes after the start of a structure a field lies, or a field
// of the structure that this one is, and so on. If there is none it is 0, and Err
// says so.
func (k *Kernel) Field(structure string, path ...string) int16 {
	n, err := k.field(structure, path)
	if err != nil && k.errs == nil {
		k.errs = err
	}
	return n
}

func (k *Kernel) field(structure string, path []string) (int16, error) {
	var s *btf.Struct
	if err := k.spec.TypeByName(structure, &s); err != nil {
		return 0, fmt.Errorf("the kernel's type %s: %w", structure, err)
	}
	var total uint32
	members := s.Members
	for _, name := range path {
		m, base, ok := member(members, name)
		if !ok {
			return 0, fmt.Errorf("the kernel's field %s.%s: %w", structure, name, btf.ErrNotFound)
		}
		total += base
		members = membersOf(m.Type)
	}
	if total > math.MaxInt16 {
		return 0, fmt.Errorf("the kernel's field %s.%v is too far: %w", structure, path, btf.ErrNotFound)
	}
	return int16(total), nil
}

// Function reports whether the kernel has a function of that name with a
// description.
func (k *Kernel) Function(name string) bool {
	var f *btf.Func
	return k.spec.TypeByName(name, &f) == nil
}

// member finds a field by name, in nameless structures and unions too.
func member(members []btf.Member, name string) (btf.Member, uint32, bool) {
	for _, m := range members {
		if m.Name == name {
			return m, m.Offset.Bytes(), true
		}
		if m.Name == "" {
			if found, base, ok := member(membersOf(m.Type), name); ok {
				return found, m.Offset.Bytes() + base, true
			}
		}
	}
	return btf.Member{}, 0, false
}

func membersOf(t btf.Type) []btf.Member {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	}
	return nil
}
