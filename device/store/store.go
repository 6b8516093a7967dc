// Package store is the device's memory: the only code that knows where state
// lies and the only code that writes it. spec/state.md describes every file.
//
// Everything the boot helper needs (slots, sets, tickets, nonces, tries) are
// plain files and symbolic links, so that a person can read and repair them.
// A file is written as temporary file, fsync, rename, fsync of the folder; a
// slot is one symbolic link, switched by one rename. A reader therefore sees
// the old or the new state, at whatever moment the power failed.
//
// Parties: journeys write, under Lock; sealant-boot reads, and writes only the
// tries. The package checks structure (names, sizes, versions, unknown
// fields). It does not check who said so: whoever uses a Set must verify its
// Ticket, and the image's bytes against the ticket, at the moment of use.
package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
)

// Version of the state folder's layout. A folder of a newer version is refused.
const Version = 1

// Limits on what is read back, in bytes.
const (
	maxDocument = 1 << 20  // any JSON document of the state
	maxTicket   = 64 << 10 // a ticket
	maxKey      = 16 << 10 // the identity key file
	maxHistory  = 64 << 20 // the history
)

// ErrEmpty says that a slot holds no set, or that a document was never written.
var ErrEmpty = errors.New("nothing there")

// Store is the state of one device. Its methods may be used by several
// goroutines; writers of different processes take Lock.
type Store struct {
	root string // the file system the device lives in, "/" or a folder
	dir  string // root/var/lib/sealant
	run  string // what a restart forgets; "" for root/run/sealant

	// Appended is told of every record that Append wrote; it may be nil.
	Appended func(Record)
}

// Open opens the state below root ("" means /). It creates nothing: a device
// that was never enrolled has a Store with empty slots. State of a newer
// version is refused.
func Open(root string) (*Store, error) {
	if root == "" {
		root = "/"
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("cannot open state: %w", err)
	}
	s := &Store{root: abs, dir: filepath.Join(abs, "var/lib/sealant")}
	data, err := readFile(s.path("version"), 64)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("cannot open state: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSuffix(string(data), "\n"))
	if err != nil || v < 1 {
		return nil, fault.New(fault.Failed, "cannot open state: %s is not a version", s.path("version"))
	}
	if v > Version {
		return nil, fault.New(fault.Failed, "cannot open state: its version %d is newer than this program's %d", v, Version).
			Hint("use the sealant that wrote it, or a newer one")
	}
	return s, nil
}

// Create makes the folders of a new device, or completes them. It is
// idempotent.
func (s *Store) Create() error {
	for _, d := range []struct {
		name string
		mode fs.FileMode
	}{
		{"", 0o755},
		{"images", 0o755},
		{"patches", 0o755},
		{"sets", 0o755},
		{"downloads", 0o755},
		{"journal", 0o700},
		{"trust", 0o755},
		{"identity", 0o700},
		{"evidence", 0o700},
	} {
		if err := os.MkdirAll(s.path(d.name), d.mode); err != nil {
			return fmt.Errorf("cannot create state: %w", err)
		}
	}
	if _, err := os.Stat(s.path("version")); err == nil {
		return nil
	}
	return writeFile(s.path("version"), []byte(strconv.Itoa(Version)+"\n"), 0o644)
}

// Exists says whether Create was ever completed.
func (s *Store) Exists() bool {
	_, err := os.Stat(s.path("version"))
	return err == nil
}

// Root is the folder the device's file system starts at, "/" on a real device.
func (s *Store) Root() string { return s.root }

// Dir is the state folder.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// document is what every JSON file of the state starts with.
type document struct {
	Schema string `json:"schema"`
}

// readDocument reads a JSON document of at most maxDocument bytes with the
// given schema ("sealant.set/1"): unknown fields, trailing bytes and other
// versions are refused. A missing file is ErrEmpty.
func readDocument(path, schema string, v any) error {
	data, err := readFile(path, maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, ErrEmpty)
	}
	if err != nil {
		return err
	}
	return decodeDocument(data, path, schema, v)
}

func decodeDocument(data []byte, path, schema string, v any) error {
	var head document
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if head.Schema != schema {
		return fmt.Errorf("%s: schema %q, this program reads %q", path, head.Schema, schema)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%s: bytes after the document", path)
	}
	return nil
}

// writeDocument writes v as a JSON document and reads it back. v must carry
// its own schema field.
func writeDocument(path string, v any, mode fs.FileMode) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return writeFile(path, append(data, '\n'), mode)
}

// ReadDocument reads a small versioned document that a journey keeps (holds,
// settings): name is a plain word, the file is NAME.json in the state folder.
// A document that was never written is ErrEmpty.
func (s *Store) ReadDocument(name, schema string, v any) error {
	if err := checkWord(name); err != nil {
		return err
	}
	return readDocument(s.path(name+".json"), schema, v)
}

// WriteDocument writes what ReadDocument reads. v must marshal with the field
// "schema".
func (s *Store) WriteDocument(name string, v any) error {
	if err := checkWord(name); err != nil {
		return err
	}
	return writeDocument(s.path(name+".json"), v, 0o644)
}

// checkWord holds a name of a file to lower-case letters, digits, dots and
// dashes, so that no name leaves its folder or hides.
func checkWord(name string) error {
	ok := name != "" && len(name) <= 64 && name[0] != '.' && name[0] != '-'
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%q is not a name (letters, digits, dot and dash, at most 64)", name)
	}
	return nil
}
