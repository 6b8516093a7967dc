package linux

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestArrivals(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	a, err := WatchArrivals(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1.json", "name with spaces", "2.json"} {
		from := filepath.Join(other, "x")
		if err := os.WriteFile(from, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(from, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for len(names) < 3 {
		name, err := a.Next()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if want := []string{"1.json", "name with spaces", "2.json"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	ended := make(chan error)
	go func() { _, err := a.Next(); ended <- err }()
	a.Close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if _, err := WatchArrivals(filepath.Join(dir, "1.json")); err == nil {
		t.Error("a file is no folder")
	}
}
