package seal

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/sealant-os/sealant/internal/fault"
)

// TestVerifyTree: a whole tree passes, one flipped bit anywhere in it does not,
// whatever the number of its levels.
func TestVerifyTree(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, blocks := range []uint64{1, 2, 127, 128, 129, 128*128 - 1, 128 * 128, 128*128 + 1} {
		data := make([]byte, blocks*BlockSize)
		for i := 0; i < len(data); i += 97 {
			data[i] = byte(random.Uint32())
		}
		tree := make(file, HashSize(blocks))
		s, err := Compute(t.Context(), bytes.NewReader(data), blocks, [SaltSize]byte{7}, tree)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyTree(bytes.NewReader(tree), s); err != nil {
			t.Errorf("%d blocks: %v", blocks, err)
		}
		if len(tree) == 0 {
			continue
		}
		for _, at := range []int{0, len(tree) - 1, random.IntN(len(tree)), random.IntN(len(tree))} {
			tree[at] ^= 4
			if err := VerifyTree(bytes.NewReader(tree), s); fault.KindOf(err) != fault.Seal {
				t.Errorf("%d blocks, a bit of byte %d flipped: %v", blocks, at, err)
			}
			tree[at] ^= 4
		}
		if err := VerifyTree(bytes.NewReader(tree[:len(tree)-1]), s); err == nil {
			t.Errorf("%d blocks: a tree that is cut short passes", blocks)
		}
		s.Root[0] ^= 1
		if err := VerifyTree(bytes.NewReader(tree), s); fault.KindOf(err) != fault.Seal {
			t.Errorf("%d blocks: another root: %v", blocks, err)
		}
	}
	if err := VerifyTree(bytes.NewReader(nil), Seal{DataBlocks: 1 << 60}); fault.KindOf(err) != fault.Seal {
		t.Error(err)
	}
}

// file is a hash tree in memory.
type file []byte

func (f file) WriteAt(p []byte, off int64) (int, error) { return copy(f[off:], p), nil }
