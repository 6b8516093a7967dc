package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

const setSchema = "sealant.set/1"

// Digest is the SHA-384 of an image, patch, manifest or baseline; in JSON 96
// lower-case hex digits.
type Digest [48]byte

// String is the digest in lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero says that no digest was given.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText writes lower-case hex.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads exactly 96 lower-case hex digits.
func (d *Digest) UnmarshalText(text []byte) error { return unhex(d[:], text) }

// Sum is a SHA-256 value (a seal's root hash) or a salt; in JSON 64 lower-case
// hex digits.
type Sum [32]byte

// String is the value in lower-case hex.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText writes lower-case hex.
func (s Sum) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads exactly 64 lower-case hex digits.
func (s *Sum) UnmarshalText(text []byte) error { return unhex(s[:], text) }

func unhex(dst, text []byte) error {
	if len(text) != 2*len(dst) {
		return fmt.Errorf("%d hex digits, want %d", len(text), 2*len(dst))
	}
	for _, c := range text {
		if c >= 'A' && c <= 'F' {
			return errors.New("upper-case hex digits")
		}
	}
	_, err := hex.Decode(dst, text)
	return err
}

// Seal is what dm-verity needs to check an image's data.
type Seal struct {
	Root       Sum    `json:"root"`
	Salt       Sum    `json:"salt"`
	DataBlocks uint64 `json:"data_blocks"` // of 4096 bytes
}

// Cryptex is one image of a set.
type Cryptex struct {
	Name       string `json:"name"`
	Subtype    uint8  `json:"subtype"` // 1 os, 2 app
	Image      Digest `json:"image"`
	Size       int64  `json:"size"` // of the whole file, in bytes
	Seal       Seal   `json:"seal"`
	TrustCache Digest `json:"trust_cache"`
}

// Set is the group of cryptexes that one ticket authorises on this device. A
// written set never changes; a fresh ticket makes another set.
type Set struct {
	ID        string    `json:"id"` // a file name, unique on this device
	Product   string    `json:"product"`
	OSVersion string    `json:"os_version"`
	Baseline  Digest    `json:"baseline"`
	Release   string    `json:"release"` // "" is the baseline itself
	Label     string    `json:"label"`   // "(b)" for eyes; "" for the baseline
	Level     int       `json:"level"`   // 0 for the baseline
	Cryptexes []Cryptex `json:"cryptexes"`
	Ticket    []byte    `json:"-"` // DER of the Image4 manifest
}

// setDocument is a Set on disk.
type setDocument struct {
	Schema string `json:"schema"`
	Set
}

// SetID names a set: its release ("base" for a baseline) and the first 12 hex
// digits of the ticket's SHA-256.
func SetID(release string, ticket []byte) string {
	if release == "" {
		release = "base"
	}
	sum := sha256.Sum256(ticket)
	return release + "-" + hex.EncodeToString(sum[:6])
}

// IsBaseline says that the set is the OS update's own content.
func (s Set) IsBaseline() bool { return s.Release == "" }

// Cryptex finds a cryptex of the set by its name.
func (s Set) Cryptex(name string) (Cryptex, bool) {
	for _, c := range s.Cryptexes {
		if c.Name == name {
			return c, true
		}
	}
	return Cryptex{}, false
}

// maxCryptexes is how many a ticket can name (two decimal digits).
const maxCryptexes = 100

func (s Set) check() error {
	if err := checkWord(s.ID); err != nil {
		return err
	}
	if s.Release != "" {
		if err := checkWord(s.Release); err != nil {
			return err
		}
	}
	if len(s.Cryptexes) == 0 || len(s.Cryptexes) > maxCryptexes {
		return fmt.Errorf("%d cryptexes, want 1 to %d", len(s.Cryptexes), maxCryptexes)
	}
	if !sort.SliceIsSorted(s.Cryptexes, func(i, j int) bool { return s.Cryptexes[i].Name < s.Cryptexes[j].Name }) {
		return errors.New("cryptexes are not sorted by name")
	}
	for i, c := range s.Cryptexes {
		if err := checkCryptexName(c.Name); err != nil {
			return err
		}
		if i > 0 && s.Cryptexes[i-1].Name == c.Name {
			return fmt.Errorf("cryptex %s is named twice", c.Name)
		}
		if c.Subtype != 1 && c.Subtype != 2 {
			return fmt.Errorf("cryptex %s: subtype %d", c.Name, c.Subtype)
		}
		if c.Size <= 0 || c.Image.IsZero() || c.Seal.DataBlocks == 0 {
			return fmt.Errorf("cryptex %s: incomplete", c.Name)
		}
	}
	return nil
}

func checkCryptexName(name string) error {
	ok := name != "" && len(name) <= 31 && name[0] != '-'
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%q is not a cryptex name", name)
	}
	return nil
}

// AddSet writes a set: its folder appears whole or not at all. Writing the
// same set again does nothing.
func (s *Store) AddSet(set Set) error {
	fail := func(err error) error { return fmt.Errorf("cannot write set %s: %w", set.ID, err) }
	if err := set.check(); err != nil {
		return fail(err)
	}
	if len(set.Ticket) == 0 || len(set.Ticket) > maxTicket {
		return fail(fmt.Errorf("ticket of %d bytes", len(set.Ticket)))
	}
	if _, err := s.SetByID(set.ID); err == nil {
		return nil
	}
	tmp := temporaryName(s.path("sets"))
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return fail(err)
	}
	defer os.RemoveAll(tmp)
	if err := writeDocument(filepath.Join(tmp, "set.json"), setDocument{setSchema, set}, 0o644); err != nil {
		return fail(err)
	}
	if err := writeFile(filepath.Join(tmp, "ticket.im4m"), set.Ticket, 0o644); err != nil {
		return fail(err)
	}
	final := s.path("sets", set.ID)
	if err := remove(final); err != nil { // a broken one: SetByID could not read it
		return fail(err)
	}
	if err := os.Rename(tmp, final); err != nil {
		return fail(err)
	}
	if err := syncDir(s.path("sets")); err != nil {
		return fail(err)
	}
	return nil
}

// SetByID reads a set and its ticket. Structure is checked, authority is not.
func (s *Store) SetByID(id string) (Set, error) {
	fail := func(err error) (Set, error) { return Set{}, fmt.Errorf("cannot read set %s: %w", id, err) }
	if err := checkWord(id); err != nil {
		return fail(err)
	}
	var doc setDocument
	if err := readDocument(s.path("sets", id, "set.json"), setSchema, &doc); err != nil {
		return fail(err)
	}
	set := doc.Set
	if set.ID != id {
		return fail(fmt.Errorf("it calls itself %q", set.ID))
	}
	if err := set.check(); err != nil {
		return fail(err)
	}
	ticket, err := readFile(s.path("sets", id, "ticket.im4m"), maxTicket)
	if err != nil {
		return fail(err)
	}
	set.Ticket = ticket
	return set, nil
}

// Sets lists the ids of all sets.
func (s *Store) Sets() ([]string, error) { return names(s.path("sets")) }

// RemoveSet deletes a set that no slot points to.
func (s *Store) RemoveSet(id string) error {
	if err := checkWord(id); err != nil {
		return err
	}
	for _, slot := range Slots {
		if at, err := s.slotID(slot); err == nil && at == id {
			return fmt.Errorf("cannot remove set %s: it is %s", id, slot)
		}
	}
	return remove(s.path("sets", id))
}

// names lists a folder without temporary files, sorted; a missing folder is empty.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if e.Name()[0] != '.' {
			all = append(all, e.Name())
		}
	}
	return all, nil
}
