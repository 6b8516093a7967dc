package linux

import (
	"crypto/sha256"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
)

func TestParseDamage(t *testing.T) {
	event := func(lines ...string) []byte { return []byte(strings.Join(lines, "\x00") + "\x00") }
	good := event("change@/devices/virtual/block/dm-0", "ACTION=change", "DM_VERITY_ERR_BLOCK_NR=0,12", "MAJOR=253", "MINOR=4")
	if d, ok := parseDamage(good); !ok || d != (Damage{Device{253, 4}, "0,12"}) {
		t.Errorf("%+v %v", d, ok)
	}
	for name, bad := range map[string][]byte{
		"nothing":     nil,
		"other event": event("change@/devices/virtual/block/dm-0", "ACTION=change", "MAJOR=253", "MINOR=4"),
		"added":       event("add@/devices/virtual/block/dm-0", "DM_VERITY_ERR_BLOCK_NR=0,12", "MAJOR=253", "MINOR=4"),
		"no device":   event("change@/x", "DM_VERITY_ERR_BLOCK_NR=0,12"),
		"odd number":  event("change@/x", "DM_VERITY_ERR_BLOCK_NR=0,12", "MAJOR=253", "MINOR=-4"),
		"udev's":      []byte("libudev\x00\xfe\xed\xca\xfe"),
	} {
		if d, ok := parseDamage(bad); ok {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// Closing ends a waiting Next.
func TestWatchDamageEnds(t *testing.T) {
	d, err := WatchDamage()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := d.Next()
		ended <- err
	}()
	time.Sleep(10 * time.Millisecond)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != os.ErrClosed {
		t.Error(err)
	}
}

// What the kernel guards says what it is; a block that was changed on the disk
// can't be read, and the kernel tells of it.
func TestMountVerity(t *testing.T) {
	if err := HasVerity(); err != nil {
		if fault.KindOf(err) == fault.Usage || os.Getenv("SEALANT_TEST_VERITY") != "" {
			t.Fatal(err)
		}
		t.Skipf("runs in test/vm/verity: %v", err)
	}
	damages, err := WatchDamage()
	if err != nil {
		t.Fatal(err)
	}
	defer damages.Close()
	dir := t.TempDir()
	image, v := sealedFile(t, dir)
	m, err := MountVerity(image, v, Options{Source: "sealant:web:abc", NoSuid: true})
	if err != nil {
		t.Fatal(err)
	}
	at := mountPoint(t, dir, "at")
	if err := m.Place(at); err != nil {
		t.Fatal(err)
	}
	defer Unmount(at)
	device, err := m.Device()
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	g, ok, err := GuardOf(device)
	if err != nil || !ok || g.Root != v.Root || g.Corrupted {
		t.Fatalf("%+v %v %v", g, ok, err)
	}
	if got := readVersion(t, at); got != "sealed" {
		t.Errorf("version %q", got)
	}
	for block := int64(1); block < int64(v.Blocks); block++ {
		if _, err := image.WriteAt([]byte{0xaa}, block*4096+9); err != nil {
			t.Fatal(err)
		}
	}
	if err := image.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(at + "/run"); err == nil {
		t.Error("read a damaged file")
	}
	d, err := damages.Next()
	if err != nil || d.Device != device || !strings.HasPrefix(d.Block, "0,") {
		t.Errorf("%+v, want device %v: %v", d, device, err)
	}
	if g, _, err = GuardOf(device); err != nil || !g.Corrupted {
		t.Errorf("%+v, %v", g, err)
	}
	if _, ok, err := GuardOf(Device{7, 0}); ok || err != nil {
		t.Errorf("a loop device is guarded: %v, %v", ok, err)
	}
	v.Root[0] ^= 1
	if m, err := MountVerity(image, v, Options{Source: "x"}); err == nil {
		m.Close()
		t.Error("mounted with another root")
	}
}

// sealedFile is an EROFS image with its hash tree behind it.
func sealedFile(t *testing.T, dir string) (*os.File, Verity) {
	t.Helper()
	image := imageFile(t, dir, "image", "sealed")
	st, err := image.Stat()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, (st.Size()+4095)/4096*4096)
	if _, err := image.ReadAt(data[:st.Size()], 0); err != nil {
		t.Fatal(err)
	}
	v := Verity{Name: "sealant-test", Blocks: uint64(len(data) / 4096), Tree: int64(len(data)), Salt: [32]byte{1, 2, 3}}
	if v.Blocks < 2 || v.Blocks > 128 {
		t.Fatalf("%d blocks: the tree of this test has one level", v.Blocks)
	}
	tree := make([]byte, 4096)
	for n := range int(v.Blocks) {
		sum := salted(v.Salt, data[n*4096:(n+1)*4096])
		copy(tree[n*32:], sum[:])
	}
	v.Root = salted(v.Salt, tree)
	if _, err := image.WriteAt(append(data, tree...), 0); err != nil {
		t.Fatal(err)
	}
	if err := image.Sync(); err != nil {
		t.Fatal(err)
	}
	return image, v
}

func salted(salt [32]byte, block []byte) [32]byte {
	return sha256.Sum256(append(salt[:], block...))
}
