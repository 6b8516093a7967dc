// Package quickstart runs every command of docs/quickstart.md, so that the
// page can't promise what does not work.
package quickstart

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var block = regexp.MustCompile("(?s)```sh\n(.*?)```")

func TestQuickstart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it boots a pretend device")
	}
	page, err := os.ReadFile("../../docs/quickstart.md")
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString("set -euo pipefail\ntrap 'kill %1 2>/dev/null || true; sealant-lab down kiosk 2>/dev/null || true' EXIT\n")
	blocks := block.FindAllSubmatch(page, -1)
	if len(blocks) < 8 {
		t.Fatalf("only %d blocks of commands found", len(blocks))
	}
	for _, b := range blocks {
		script.Write(b[1])
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin+"/", "./cmd/sealant", "./cmd/sealant-boot", "./cmd/sealpub", "./cmd/sealsrv", "./cmd/sealant-lab")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := listener.Addr().String()
	listener.Close()

	cmd := exec.Command("bash", "-c", strings.ReplaceAll(script.String(), "127.0.0.1:8470", free))
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LANG=C.UTF-8")
	cmd.WaitDelay = 0
	log := filepath.Join(cmd.Dir, "log")
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Run()
	out, _ := os.ReadFile(log)
	if err != nil {
		t.Fatalf("the page's commands failed: %v\n%s", err, out)
	}
	for _, want := range []string{"door: opened for mallory", "door: refused", "bit-exact both ways", "Nothing running was changed", "Fixed now", "no download"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the page's commands never print %q\n%s", want, out)
		}
	}
}
