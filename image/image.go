// Package image is the cryptex: one sealed, read-only disk image in one file.
//
// The parties: a publisher builds a cryptex from a tree of files (Build), or
// moves parts of an OS tree into cryptexes (Split). A device opens it (Open),
// checks every byte of it (Verify) and mounts it. A patch turns the data of
// one cryptex into the data of the next; what comes after the data is
// recomputed on the device (Finish), never shipped.
//
// Bytes, each part at a multiple of 4096:
//
//	data         an EROFS file system (package erofs)
//	superblock   of dm-verity, one block, as veritysetup writes it (package seal)
//	hash tree    of dm-verity over the data
//	trust cache  what may execute (package trustcache), zero padded
//	footer       one block: where the parts lie, name, subtype, seal
//
// Everything after the data is a function of the data, the name, the subtype
// and the salt. The kernel mounts the file as it is, fsck.erofs checks it, and
// `veritysetup verify FILE FILE ROOT --hash-offset DATASIZE` checks its tree.
// spec/cryptex.md says it in full.
//
// There are two identities. The digest of the whole file (SHA-384) names an
// image in catalogs and patches. The seal, the root of the hash tree, names
// its data; the kernel checks each read against it. Neither is trustworthy by
// itself: the caller compares them with a verified ticket.
package image

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"

	"github.com/sealant-os/sealant/image/seal"
	"github.com/sealant-os/sealant/internal/fault"
)

// DigestSize is the size of a Digest in bytes.
const DigestSize = 48

// Digest is SHA-384 of a whole file, or of a whole document.
type Digest [DigestSize]byte

// String is the digest in lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero tells whether the digest was never set.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText writes the digest in lower-case hex, in JSON too.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText writes, and nothing else.
func (d *Digest) UnmarshalText(b []byte) error {
	parsed, err := ParseDigest(string(b))
	if err == nil {
		*d = parsed
	}
	return err
}

// ParseDigest reads 96 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*DigestSize || strings.ToLower(s) != s {
		return Digest{}, fault.New(fault.Failed, "cannot read the digest %.100q: not %d lower-case hex digits", s, 2*DigestSize)
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fault.New(fault.Failed, "cannot read the digest %.100q: %w", s, err)
	}
	return d, nil
}

// Subtype says what an image holds.
type Subtype uint8

// The subtypes. Their numbers stand in footers and tickets.
const (
	OS  Subtype = 1 // framework components and libraries
	App Subtype = 2 // an app
)

// String is the subtype's name: "os" or "app".
func (s Subtype) String() string {
	switch s {
	case OS:
		return "os"
	case App:
		return "app"
	}
	return "unknown"
}

// ParseSubtype reads "os" or "app".
func ParseSubtype(s string) (Subtype, error) {
	for _, t := range []Subtype{OS, App} {
		if s == t.String() {
			return t, nil
		}
	}
	return 0, fault.New(fault.Usage, "cannot read the subtype %q: it is os or app", s)
}

// MaxName is the length of the longest name in bytes.
const MaxName = 31

// CheckName refuses what is no name of a cryptex: 1 to 31 of a-z, 0-9 and "-",
// with no "-" at either end.
func CheckName(name string) error {
	ok := len(name) >= 1 && len(name) <= MaxName && name[0] != '-' && name[len(name)-1] != '-'
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fault.New(fault.Usage, "cannot name a cryptex %.40q: a name has 1 to %d of a-z, 0-9 and \"-\", no \"-\" at either end", name, MaxName)
	}
	return nil
}

// Options are what an image has besides its data.
type Options struct {
	Name    string // as CheckName wants it
	Subtype Subtype
	Salt    [seal.SaltSize]byte // of the seal; zero means DefaultSalt(Name)

	// Progress is told how many of how many bytes are done; it may be nil. It
	// is called by one goroutine at a time.
	Progress func(done, total int64)
}

func (o Options) check() (Options, error) {
	if err := CheckName(o.Name); err != nil {
		return o, err
	}
	if o.Subtype != OS && o.Subtype != App {
		return o, fault.New(fault.Usage, "cannot make an image of subtype %d: it is os or app", o.Subtype)
	}
	if o.Salt == [seal.SaltSize]byte{} {
		o.Salt = DefaultSalt(o.Name)
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	return o, nil
}

// DefaultSalt is the salt of an image for which none was chosen: SHA-256 of
// "sealant salt 1", a zero byte and the name. A seal's salt is no secret; it
// keeps equal blocks of different images from having equal hashes.
func DefaultSalt(name string) [seal.SaltSize]byte {
	return sha256.Sum256([]byte("sealant salt 1\x00" + name))
}

// File is a file that an image is written to. An *os.File is one. Finish reads
// and writes different ranges with several goroutines at once, all within the
// size that it has set by Truncate.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// Summary says what an image is.
type Summary struct {
	Name        string
	Subtype     Subtype
	Size        int64 // bytes of the whole file
	DataSize    int64 // bytes of the EROFS part
	Digest      Digest
	Seal        seal.Seal
	TrustCache  Digest // of the encoded trust cache
	Files       int    // regular files, each hard link counted
	Executables int    // entries of the trust cache
}
