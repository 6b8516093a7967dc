package linux

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/test/namespace"
)

func write(t testing.TB, path, text string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLock(t *testing.T) {
	dir := namespace.Dir(t)
	a, b := write(t, filepath.Join(dir, "lock"), ""), write(t, filepath.Join(dir, "lock"), "")
	if ok, err := TryLock(a); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := TryLock(b); ok || err != nil {
		t.Fatal(ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	if err := Lock(ctx, b); fault.KindOf(err) != fault.Busy {
		t.Errorf("%v", err)
	}
	time.AfterFunc(40*time.Millisecond, func() { Unlock(a) })
	if err := Lock(t.Context(), b); err != nil {
		t.Error(err)
	}
	b.Close()
	if ok, err := TryLock(a); !ok || err != nil {
		t.Error("the lock outlives its file", ok, err)
	}
}

func TestRenames(t *testing.T) {
	dir := namespace.Dir(t)
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	write(t, a, "A")
	write(t, b, "B")
	if err := Exchange(a, b); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(a); string(data) != "B" {
		t.Errorf("a holds %q", data)
	}
	if err := RenameNew(a, b); !errors.Is(err, os.ErrExist) {
		t.Errorf("renamed over another: %v", err)
	}
	if err := RenameNew(a, c); err != nil {
		t.Error(err)
	}
	if err := SyncDir(dir); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(dir, "missing")); err == nil {
		t.Error("synced nothing")
	}
}

func TestCopyRange(t *testing.T) {
	dir := namespace.Dir(t)
	text := string(bytes.Repeat([]byte("block of text..."), 1024))
	src := write(t, filepath.Join(dir, "src"), text)
	dst := write(t, filepath.Join(dir, "dst"), "start:")
	if err := CopyRange(dst, 6, src, 16, int64(len(text)-16)); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(filepath.Join(dir, "dst"))
	if string(got) != "start:"+text[16:] {
		t.Error("other bytes were copied")
	}
	if err := CopyRange(dst, 0, src, 16, int64(len(text))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("past the end: %v", err)
	}
	// From a pipe-like file system the kernel can't copy; reading and writing must do.
	status, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer status.Close()
	if err := CopyRange(dst, 0, status, 0, 20); err != nil {
		t.Error(err)
	}
	err = CloneRange(dst, 0, src, 0, 4096)
	var u *fault.Unsupported
	if err != nil && !errors.As(err, &u) {
		t.Errorf("clone: %v", err)
	}
}

func TestFree(t *testing.T) {
	dir := namespace.Dir(t)
	at := mountPoint(t, dir, "at")
	if err := Tmpfs(at); err != nil {
		t.Fatal(err)
	}
	before, err := Free(at)
	if err != nil || before.Available <= 0 || before.Total < before.Available {
		t.Fatalf("%+v, %v", before, err)
	}
	f := write(t, filepath.Join(at, "f"), "")
	if err := Reserve(f, 1<<20); err != nil {
		t.Fatal(err)
	}
	after, err := Free(at)
	if err != nil || before.Available-after.Available < 1<<20 {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
	if ro, err := ReadOnly(at); err != nil || ro {
		t.Error(ro, err)
	}
	if err := Forget(f); err != nil {
		t.Error(err)
	}
}
