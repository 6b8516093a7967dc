//go:build slow

package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// built builds the project's packages and programs once.
var built = sync.OnceValues(func() (string, error) {
	// $SEALANT_ARCH spares time while something is tried.
	out, err := exec.Command("../../packaging/build", strings.Fields(os.Getenv("SEALANT_ARCH"))...).CombinedOutput()
	return string(out), err
})

// packages returns the one built package file that fits, like sealant_*_amd64.deb.
func packages(t *testing.T, pattern string) string {
	t.Helper()
	said, err := built()
	if err != nil {
		t.Fatalf("cannot build the packages: %s\n%s", err, said)
	}
	for name := range strings.Lines(said) {
		name = strings.TrimSpace(strings.TrimPrefix(name, "./"))
		if ok, _ := filepath.Match(pattern, name); ok {
			path, err := filepath.Abs(filepath.Join("../../build/packages", name))
			if err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
	t.Fatalf("no package %s among\n%s", pattern, said)
	return ""
}

// laid is the file of a package as it was laid out, for this machine.
func laid(t *testing.T, path string) string {
	t.Helper()
	packages(t, "sealant_*_amd64.deb")
	abs, err := filepath.Abs(filepath.Join("../../build/stage/amd64", path))
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// sh runs a shell script with the programs in its PATH, and ends the test if it fails.
func sh(t *testing.T, script string) string {
	t.Helper()
	run := exec.Command("bash", "-euc", script)
	run.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PATH="+laid(t, "sealant-publisher/usr/bin")+":"+laid(t, "sealant-server/usr/bin")+":"+
		laid(t, "sealant/usr/bin")+":"+os.Getenv("PATH"))
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%s\n%s", script, err, out)
	}
	return string(out)
}
