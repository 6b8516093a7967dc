package store

import (
	"errors"
	"fmt"
	"io/fs"
)

// maxJournal bounds the journal, in bytes.
const maxJournal = 4 << 20

// Journal reads the change under way; ErrEmpty if there is none. Package
// change gives the bytes their meaning.
func (s *Store) Journal() ([]byte, error) {
	data, err := readFile(s.path("journal", "change.json"), maxJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("journal: %w", ErrEmpty)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read journal: %w", err)
	}
	return data, nil
}

// WriteJournal replaces the journal in one step.
func (s *Store) WriteJournal(data []byte) error {
	return writeFile(s.path("journal", "change.json"), data, 0o600)
}

// ClearJournal says that no change is under way.
func (s *Store) ClearJournal() error { return remove(s.path("journal", "change.json")) }
