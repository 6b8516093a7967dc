package rig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// DocumentVectors reads the vectors of one kind of document from a folder of
// spec/vectors: text files with a header ("expect", "document"), a blank line
// and the document. ok says whether it is expected to be read.
func DocumentVectors(t testing.TB, dir, document string, run func(name string, data []byte, ok bool)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	check(t, err)
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(t, err)
		head, body, _ := strings.Cut(string(text), "\n\n")
		if !strings.Contains(head+"\n", "document: "+document+"\n") {
			continue
		}
		found++
		run(filepath.Base(file), []byte(body), strings.HasPrefix(head, "expect: ok\n"))
	}
	if found == 0 {
		t.Fatalf("no vectors of %s in %s", document, dir)
	}
}
