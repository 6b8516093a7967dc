// Package trustcache is the list of what may execute from an image.
//
// The parties: a publisher's image build lists every file that can run code,
// with its fs-verity digest, which is the name that Linux itself gives to a
// file's content (FS_IOC_MEASURE_VERITY, IPE, BPF LSM). A ticket carries the
// digest of the list. A device that enforces lets only listed files execute
// from the image, and checks the list against the files before it trusts it.
//
// What is listed: every path of a regular file that has an executable bit, or
// is an ELF shared object (a library needs no executable bit to run code; a
// program does). A file with several hard links is listed under each path.
//
// Bytes, all numbers little-endian:
//
//	 0  8  "slnttc" and two zeros
//	 8  4  version 1
//	12  4  number of entries
//	then each entry, sorted by path in byte order, no path twice:
//	 0 32  fs-verity digest: SHA-256, 4096-byte blocks, no salt
//	32  1  kind: 1 executable, 2 library, 3 script, 4 other
//	33  1  zero
//	34  2  length of the path, 1 to 4095
//	36  …  path, relative to the root of the image: "usr/bin/true"
//
// There is exactly one encoding of a list, and Parse takes no other.
// spec/trustcache.md says it in full. The caller must still check that the
// list is the one the ticket names, and that the files are the ones listed.
package trustcache

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
)

// Limits of a list. Parse and Encode refuse what exceeds them.
const (
	MaxEntries = 1 << 17  // entries
	MaxSize    = 16 << 20 // bytes of the encoded list
	MaxPath    = 4095     // bytes of a path
)

const (
	magic      = "slnttc\x00\x00"
	version    = 1
	headerSize = 16
	entrySize  = 36 // without the path
)

// Kind says how a listed file runs code.
type Kind uint8

// The kinds. Their numbers stand in the encoded list.
const (
	Executable Kind = 1 // an ELF program
	Library    Kind = 2 // an ELF shared object, the dynamic linker included
	Script     Kind = 3 // a file with an executable bit that begins with "#!"
	Other      Kind = 4 // any other file with an executable bit
)

// String is the kind's name in listings and JSON.
func (k Kind) String() string {
	switch k {
	case Executable:
		return "executable"
	case Library:
		return "library"
	case Script:
		return "script"
	case Other:
		return "other"
	}
	return "unknown"
}

// Entry is one path that may execute.
type Entry struct {
	Path   string   // relative to the image's root, no leading slash
	Kind   Kind     // how it runs
	Digest [32]byte // its fs-verity digest
}

// Cache is a list of entries, sorted by path.
type Cache struct{ Entries []Entry }

// Encode is the canonical encoding of the list. It refuses entries that are
// out of order or break a limit.
func (c *Cache) Encode() ([]byte, error) {
	if len(c.Entries) > MaxEntries {
		return nil, fault.New(fault.Failed, "cannot encode the trust cache: %d entries, more than %d", len(c.Entries), MaxEntries)
	}
	b := make([]byte, 0, headerSize+len(c.Entries)*(entrySize+64))
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.Entries)))
	for i, e := range c.Entries {
		if why := e.wrong(); why != "" {
			return nil, fault.New(fault.Failed, "cannot encode the trust cache: %q: %s", e.Path, why)
		}
		if i > 0 && e.Path <= c.Entries[i-1].Path {
			return nil, fault.New(fault.Failed, "cannot encode the trust cache: %q is out of order", e.Path)
		}
		b = append(b, e.Digest[:]...)
		b = append(b, byte(e.Kind), 0)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(e.Path)))
		b = append(b, e.Path...)
	}
	if len(b) > MaxSize {
		return nil, fault.New(fault.Failed, "cannot encode the trust cache: %d bytes, more than %d", len(b), MaxSize)
	}
	return b, nil
}

// wrong says what is wrong with an entry, "" if nothing.
func (e Entry) wrong() string {
	switch {
	case e.Kind < Executable || e.Kind > Other:
		return "unknown kind"
	case e.Path == "" || len(e.Path) > MaxPath:
		return "bad length of the path"
	case strings.IndexByte(e.Path, 0) >= 0:
		return "a zero byte in the path"
	}
	for name := range strings.SplitSeq(e.Path, "/") {
		if name == "" || name == "." || name == ".." {
			return "not a clean relative path"
		}
	}
	return ""
}

// Parse reads a list. It accepts only the canonical encoding, to the last byte.
func Parse(b []byte) (*Cache, error) {
	refuse := func(format string, args ...any) (*Cache, error) {
		return nil, fault.New(fault.Seal, "cannot read the trust cache: "+format, args...)
	}
	if len(b) > MaxSize {
		return refuse("%d bytes, more than %d", len(b), MaxSize)
	}
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(magic)) {
		return refuse("it is none")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return refuse("version %d is not known", v)
	}
	n := binary.LittleEndian.Uint32(b[12:])
	b = b[headerSize:]
	if n > MaxEntries || int(n) > len(b)/entrySize {
		return refuse("%d entries do not fit", n)
	}
	c := &Cache{Entries: make([]Entry, 0, n)}
	for range n {
		if len(b) < entrySize {
			return refuse("it is cut short")
		}
		e := Entry{Kind: Kind(b[32])}
		copy(e.Digest[:], b)
		length := int(binary.LittleEndian.Uint16(b[34:]))
		if b[33] != 0 || len(b) < entrySize+length {
			return refuse("it is cut short")
		}
		e.Path = string(b[entrySize : entrySize+length])
		b = b[entrySize+length:]
		if why := e.wrong(); why != "" {
			return refuse("%q: %s", e.Path, why)
		}
		if k := len(c.Entries); k > 0 && e.Path <= c.Entries[k-1].Path {
			return refuse("%q is out of order", e.Path)
		}
		c.Entries = append(c.Entries, e)
	}
	if len(b) != 0 {
		return refuse("%d bytes too many", len(b))
	}
	return c, nil
}

// Find returns the entry of a path.
func (c *Cache) Find(path string) (Entry, bool) {
	lo, hi := 0, len(c.Entries)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if c.Entries[mid].Path < path {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(c.Entries) && c.Entries[lo].Path == path {
		return c.Entries[lo], true
	}
	return Entry{}, false
}

// Digest is SHA-384 of an encoded list: the 48 bytes by which a ticket names
// it.
func Digest(encoded []byte) [48]byte { return sha512.Sum384(encoded) }
