//go:build slow

package corpus

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image/patch"
)

// most is how many bytes each patch may have. Lower them when they get smaller. (They were
// raised once, by 0.6 %, for a tenth less time.)
var most = map[string]int{
	"libcurl4":      9_621,
	"libxml2":       7_038,
	"libssl3-17-20": 23_501,
	"libssl3-20-22": 15_472,
	"libssl3-arm64": 14_747,
	"libc6":         23_977,

	// With documentation and archives, whose members are compressed.
	"libcurl4-whole": 11_507,
	"libssl3-whole":  19_979,
	"tomcat10":       530_978,
}

// slack is for mkfs.erofs of other versions, in percent.
const slack = 1

func TestBytes(t *testing.T) {
	cmd := exec.Command("./fetch", "libs")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot fetch the corpus: %v", err)
	}
	pairs := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(pairs) < 2 {
		t.Fatalf("the archives have %d pairs left: choose new ones", len(pairs))
	}
	for _, line := range pairs {
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
			var p bytes.Buffer
			if _, err := patch.Make(&p, bytes.NewReader(old), bytes.NewReader(data), patch.MakeOptions{}); err != nil {
				t.Fatal(err)
			}
			if want := most[f[0]]; p.Len() > want+want*slack/100 {
				t.Errorf("the patch has %d bytes, had %d", p.Len(), want)
			}
			got := &file{}
			if _, err := patch.Apply(got, bytes.NewReader(old), bytes.NewReader(p.Bytes()), patch.ApplyOptions{}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.data, data) {
				t.Error("the result differs")
			}
		})
	}
}

// file is a file in memory.
type file struct{ data []byte }

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(f.data).ReadAt(b, off)
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	if end := off + int64(len(b)); end > int64(len(f.data)) {
		if err := f.Truncate(end); err != nil {
			return 0, err
		}
	}
	return copy(f.data[off:], b), nil
}

func (f *file) Truncate(size int64) error {
	if size > int64(len(f.data)) {
		f.data = append(f.data, make([]byte, size-int64(len(f.data)))...)
	}
	f.data = f.data[:size]
	return nil
}
