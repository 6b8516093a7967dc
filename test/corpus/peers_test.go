//go:build slow

package corpus

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image/patch"
)

// A patch may be this much larger than the best peer's.
func allowed(best int) int { return best + best/100 + 256 }

// TestPeers holds that no peer is better by more than a hundredth, whatever the
// files are.
func TestPeers(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			old, data := k.make(t)
			beside(t, old, data)
		})
	}
}

// TestPeersReal does the same for the files of SEALANT_PAIRS: lines of a name
// and two paths.
func TestPeersReal(t *testing.T) {
	list, err := os.ReadFile(os.Getenv("SEALANT_PAIRS"))
	if err != nil {
		t.Skip("no list of pairs in SEALANT_PAIRS")
	}
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		t.Run(f[0], func(t *testing.T) {
			old, err := os.ReadFile(f[1])
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(f[2])
			if err != nil {
				t.Fatal(err)
			}
			beside(t, old, data)
		})
	}
}

func beside(t *testing.T, old, data []byte) {
	t.Helper()
	name, best := peers(t, old, data)
	var p bytes.Buffer
	s, err := patch.Make(&p, bytes.NewReader(old), bytes.NewReader(data), patch.MakeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := &file{}
	if _, err := patch.Apply(got, bytes.NewReader(old), bytes.NewReader(p.Bytes()), patch.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.data, data) {
		t.Error("the result differs")
	}
	t.Logf("%9d → %9d: %9d bytes, best peer %9d (%s), %.3f; runs %d, literal %d, map %d, %+v",
		len(old), len(data), p.Len(), best, name, float64(p.Len())/float64(max(best, 1)), s.Runs, s.Literal, s.MapBytes, s.Costs)
	if p.Len() > allowed(best) {
		t.Errorf("VIOLATION: the patch has %d bytes, %s needs %d", p.Len(), name, best)
	}
}

// peers is the smallest that any peer makes of a pair, and its name. Answers
// are kept beside the corpus: peers are slow.
func peers(t *testing.T, old, data []byte) (string, int) {
	t.Helper()
	root := os.Getenv("SEALANT_CORPUS")
	if root == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		root = filepath.Join(home, ".cache/sealant-corpus")
	}
	h := sha256.New()
	fmt.Fprintln(h, len(old))
	h.Write(old)
	h.Write(data)
	kept := filepath.Join(root, "peers", fmt.Sprintf("%x", h.Sum(nil)[:12]))
	if b, err := os.ReadFile(kept); err == nil {
		name, size, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		if n, err := strconv.Atoi(size); err == nil {
			return name, n
		}
	}
	dir := t.TempDir()
	was, is, out := filepath.Join(dir, "old"), filepath.Join(dir, "new"), filepath.Join(dir, "out")
	for path, b := range map[string][]byte{was: old, is: data} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name, best := "", -1
	for _, args := range [][]string{
		{"bsdiff", was, is, out},
		{"xdelta3", "-D", "-R", "-9", "-S", "lzma", "-B", "1073741824", "-f", "-e", "-s", was, is, out},
		{"xdelta3", "-D", "-R", "-9", "-B", "1073741824", "-f", "-e", "-s", was, is, out},
		{"zstd", "-q", "--ultra", "-22", "--long=31", "--patch-from=" + was, is, "-o", out, "-f"},
		{"xz", "-9e", "-k", "-c", is},
	} {
		if args[0] == "bsdiff" && len(old)+len(data) > 60<<20 {
			continue // minutes
		}
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(args[0], args[1:]...)
		if args[0] == "xz" {
			f, err := os.Create(out)
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout = f
			defer f.Close()
		}
		if err := cmd.Run(); err != nil {
			continue // a peer may not like empty files
		}
		st, err := os.Stat(out)
		if err != nil {
			continue
		}
		if n := int(st.Size()); best < 0 || n < best {
			name, best = args[0], n
		}
	}
	if best < 0 {
		t.Fatal("no peer works: install those of test/packages")
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, fmt.Appendf(nil, "%s %d\n", name, best), 0o644); err != nil {
		t.Fatal(err)
	}
	return name, best
}
