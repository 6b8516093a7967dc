package linux

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Xattrs reads all extended attributes of a file, sorted by name, without
// following a symbolic link. A file system that has none is no error.
func Xattrs(path string) (names []string, values [][]byte, err error) {
	list, err := grow(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot list the extended attributes of %s: %w", path, err)
	}
	names = strings.FieldsFunc(string(list), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	for _, name := range names {
		v, err := grow(func(b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read the extended attribute %s of %s: %w", name, path, err)
		}
		values = append(values, v)
	}
	return names, values, nil
}

// SetXattr sets an extended attribute of a file, not of what a symbolic link
// points to.
func SetXattr(path, name string, value []byte) error {
	if err := unix.Lsetxattr(path, name, value, 0); err != nil {
		return fmt.Errorf("cannot set the extended attribute %s of %s: %w", name, path, err)
	}
	return nil
}

// grow asks for a size, then for the bytes, again if they grew in between.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		b := make([]byte, n)
		n, err = read(b)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
}
