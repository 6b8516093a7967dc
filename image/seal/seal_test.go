package seal_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image/seal"
	"github.com/sealant-os/sealant/internal/fault"
)

var salt = sha256.Sum256([]byte("salt"))

// memory is a file in memory.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) { return copy(m.b[off:], p), nil }

func newMemory(blocks int) *memory { return &memory{make([]byte, seal.HashSize(uint64(blocks)))} }

// noise is data whose blocks all differ.
func noise(blocks int) []byte {
	b := make([]byte, blocks*seal.BlockSize)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func compute(t testing.TB, data []byte) (seal.Seal, []byte) {
	t.Helper()
	blocks := len(data) / seal.BlockSize
	tree := newMemory(blocks)
	s, err := seal.Compute(context.Background(), bytes.NewReader(data), uint64(blocks), salt, tree)
	if err != nil {
		t.Fatal(err)
	}
	return s, tree.b
}

// The sizes at which a level of the tree begins or ends.
var sizes = []int{1, 2, 127, 128, 129, 255, 256, 257, 128*128 - 1, 128 * 128, 128*128 + 1}

func TestVeritysetupMakesTheSame(t *testing.T) {
	dir := t.TempDir()
	for _, blocks := range sizes {
		data := noise(blocks)
		s, tree := compute(t, data)
		dataFile, hashFile := filepath.Join(dir, "data"), filepath.Join(dir, "hash")
		write(t, dataFile, data)
		write(t, hashFile, nil)
		id := s.UUID()
		out := veritysetup(t, "format", "--salt", hex.EncodeToString(salt[:]),
			"--uuid", fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]), dataFile, hashFile)
		if !strings.Contains(out, s.String()) {
			t.Errorf("%d blocks: root %s, veritysetup says\n%s", blocks, s, out)
		}
		theirs, err := os.ReadFile(hashFile)
		if err != nil {
			t.Fatal(err)
		}
		ours := append(s.Superblock(), tree...)
		theirs = append(theirs, make([]byte, max(0, len(ours)-len(theirs)))...)
		if !bytes.Equal(ours, theirs) {
			t.Errorf("%d blocks: veritysetup writes other bytes", blocks)
		}
	}
}

func TestVeritysetupVerifiesOurs(t *testing.T) {
	data := noise(300)
	s, tree := compute(t, data)
	file := filepath.Join(t.TempDir(), "image")
	write(t, file, bytes.Join([][]byte{data, s.Superblock(), tree}, nil))
	offset := fmt.Sprint(len(data))
	veritysetup(t, "verify", file, file, s.String(), "--hash-offset", offset)
	data[1000] ^= 1
	write(t, file, bytes.Join([][]byte{data, s.Superblock(), tree}, nil))
	if out, err := exec.Command("veritysetup", "verify", file, file, s.String(), "--hash-offset", offset).CombinedOutput(); err == nil {
		t.Errorf("veritysetup accepts a flipped bit: %s", out)
	}
}

func TestWriterSealsAsComputeDoes(t *testing.T) {
	for _, blocks := range sizes {
		data := noise(blocks)
		want, wantTree := compute(t, data)
		tree := newMemory(blocks)
		w, err := seal.NewWriter(tree, uint64(blocks), salt)
		if err != nil {
			t.Fatal(err)
		}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(300_000))
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		got, err := w.Close()
		if err != nil || got != want || !bytes.Equal(tree.b, wantTree) {
			t.Errorf("%d blocks: got %v, %v", blocks, got, err)
		}
		if _, err := w.Write([]byte{1}); err == nil {
			if _, err := w.Close(); err == nil {
				t.Errorf("%d blocks: one byte too many is accepted", blocks)
			}
		}
	}
}

func TestVerifyRefusesEveryFlippedBit(t *testing.T) {
	ctx := context.Background()
	data := noise(130)
	s, tree := compute(t, data)
	if err := seal.Verify(ctx, bytes.NewReader(data), bytes.NewReader(tree), s); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if fault.KindOf(err) != fault.Seal {
			t.Errorf("%s: got %v", what, err)
		}
	}
	for range 50 {
		for name, b := range map[string][]byte{"data": data, "tree": tree} {
			at, bit := rand.IntN(len(b)), byte(1)<<rand.IntN(8)
			b[at] ^= bit
			refused(fmt.Sprintf("bit %d of byte %d of the %s", bit, at, name), seal.Verify(ctx, bytes.NewReader(data), bytes.NewReader(tree), s))
			b[at] ^= bit
		}
	}
	refused("tree cut short", seal.Verify(ctx, bytes.NewReader(data), bytes.NewReader(tree[:len(tree)-1]), s))
	if err := seal.Verify(ctx, bytes.NewReader(data[:len(data)-1]), bytes.NewReader(tree), s); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("data cut short: got %v", err)
	}
	for _, change := range []func(*seal.Seal){
		func(s *seal.Seal) { s.Root[31] ^= 1 },
		func(s *seal.Seal) { s.Salt[0] ^= 1 },
		func(s *seal.Seal) { s.DataBlocks-- },
	} {
		other := s
		change(&other)
		if seal.Verify(ctx, bytes.NewReader(data), bytes.NewReader(tree), other) == nil {
			t.Errorf("accepted with the seal %+v", other)
		}
		if other.Digest() == s.Digest() {
			t.Error("the digest does not cover every field")
		}
	}
}

func TestSuperblockHasOneForm(t *testing.T) {
	s := seal.Seal{Salt: salt, DataBlocks: 12345}
	block := s.Superblock()
	if got, err := seal.ParseSuperblock(block); err != nil || got != s {
		t.Fatalf("got %v, %v", got, err)
	}
	for at := range block {
		for bit := range 8 {
			block[at] ^= 1 << bit
			// The number of blocks is free; everything else depends on something.
			if got, err := seal.ParseSuperblock(block); err == nil && got.DataBlocks == s.DataBlocks {
				t.Errorf("byte %d, bit %d: accepted as %+v", at, bit, got)
			}
			block[at] ^= 1 << bit
		}
	}
	for _, n := range []int{0, 512, seal.BlockSize - 1, seal.BlockSize + 1} {
		if _, err := seal.ParseSuperblock(make([]byte, n)); err == nil {
			t.Errorf("%d bytes are accepted", n)
		}
	}
	for _, blocks := range []uint64{0, seal.MaxDataBlocks + 1, 1 << 63} {
		s.DataBlocks = blocks
		if _, err := seal.ParseSuperblock(s.Superblock()); err == nil {
			t.Errorf("%d blocks are accepted", blocks)
		}
	}
}

func TestTreeRefusesWrongPieces(t *testing.T) {
	for name, add := range map[string]func(*seal.Tree) error{
		"unaligned":  func(t *seal.Tree) error { return t.Add(seal.BlockSize, make([]byte, seal.BlockSize)) },
		"negative":   func(t *seal.Tree) error { return t.Add(-seal.SpanSize, make([]byte, seal.SpanSize)) },
		"beyond":     func(t *seal.Tree) error { return t.Add(seal.SpanSize, make([]byte, seal.SpanSize)) },
		"part block": func(t *seal.Tree) error { return t.Add(0, make([]byte, 100)) },
		"part span":  func(t *seal.Tree) error { return t.Add(0, make([]byte, seal.BlockSize)) },
		"missing":    func(t *seal.Tree) error { _, err := t.Close(); return err },
		"twice": func(t *seal.Tree) error {
			_ = t.Add(0, make([]byte, seal.SpanSize))
			_ = t.Add(0, make([]byte, seal.SpanSize))
			_, err := t.Close()
			return err
		},
	} {
		tree, err := seal.NewTree(newMemory(130), 130, salt)
		if err != nil {
			t.Fatal(err)
		}
		if add(tree) == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, n := range []uint64{0, seal.MaxDataBlocks + 1, 1 << 62, 1<<64 - 1} {
		if _, err := seal.NewTree(newMemory(1), n, salt); err == nil {
			t.Errorf("%d blocks: no error", n)
		}
	}
}

func TestComputeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := seal.Compute(ctx, bytes.NewReader(noise(2)), 2, salt, newMemory(2))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLargestTree(t *testing.T) {
	// 1 TiB of data: 2^28 blocks, 2^21 + 2^14 + 2^7 + 1 hash blocks.
	if got, want := seal.HashSize(seal.MaxDataBlocks), int64(1<<21+1<<14+1<<7+1)*seal.BlockSize; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func FuzzParseSuperblock(f *testing.F) {
	f.Add(seal.Seal{Salt: salt, DataBlocks: 1}.Superblock())
	f.Add(make([]byte, seal.BlockSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := seal.ParseSuperblock(b); err == nil && !bytes.Equal(s.Superblock(), b) {
			t.Errorf("%x is accepted and is not canonical", b)
		}
	})
}

func BenchmarkCompute(b *testing.B) {
	data := noise(32 << 10)
	tree := newMemory(32 << 10)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := seal.Compute(context.Background(), bytes.NewReader(data), uint64(len(data)/seal.BlockSize), salt, tree); err != nil {
			b.Fatal(err)
		}
	}
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func veritysetup(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("veritysetup", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup %v: %v\n%s", args, err, out)
	}
	return string(out)
}
