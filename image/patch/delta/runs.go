package delta

import (
	"fmt"
	"math/bits"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/entropy"
)

// runCoder codes the map: the runs in the order of the new data, each by the
// gap before it, its length, and how far the old data jumps.
type runCoder struct {
	gap, length, jump *entropy.ContextNumbers
	straight          [3]entropy.Flag
	l1, l2            uint32
	jumped            int64
	newEnd, oldEnd    int64
}

func newRunCoder() *runCoder {
	return &runCoder{gap: entropy.NewContextNumbers(3), length: entropy.NewContextNumbers(4), jump: entropy.NewContextNumbers(4)}
}

// bitLen is the length of v in bits, at most 20.
func bitLen(v uint64) uint32 { return uint32(min(bits.Len64(v), 20)) }

// code codes one run. When decoding the result may be any numbers that do not
// overflow: check them.
func (k *runCoder) code(c *entropy.Coder, r align.Run) (align.Run, error) {
	const limit = 1 << 60
	gap := k.gap.Code(c, []uint32{1, 100 + k.l1, 200 + k.l1*32 + k.l2*1024}, uint64(r.New-k.newEnd))
	lg := bitLen(gap)
	length := k.length.Code(c, []uint32{1, 100 + lg, 200 + k.l1, 300 + lg*64 + k.l1*2048}, uint64(r.Len))
	straight := 0
	if r.Old-k.oldEnd == r.New-k.newEnd {
		straight = 1
	}
	jump := int64(gap)
	if k.straight[min(lg, 2)].Code(c, straight) == 0 {
		u := k.jump.Code(c, []uint32{1, 100 + lg, 200 + bitLen(entropy.Zigzag(k.jumped)), 300 + bitLen(length)}, entropy.Zigzag(r.Old-k.oldEnd))
		jump = entropy.Unzigzag(u)
	}
	if gap > limit || length > limit || jump > limit || jump < -limit {
		return r, fmt.Errorf("run %d+%d+%d is out of range", gap, length, jump)
	}
	r = align.Run{New: k.newEnd + int64(gap), Old: k.oldEnd + jump, Len: int64(length)}
	k.jumped, k.l2, k.l1 = jump, k.l1, bitLen(length)
	k.newEnd, k.oldEnd = r.New+r.Len, r.Old+r.Len
	return r, nil
}

// check refuses a run that does not lie within both data, after the run before.
func check(r align.Run, newEnd, newSize, oldSize int64) error {
	if r.Len <= 0 || r.New < newEnd || r.Len > newSize || r.New > newSize-r.Len ||
		r.Old < 0 || r.Len > oldSize || r.Old > oldSize-r.Len {
		return fmt.Errorf("run of %d bytes from %d to %d is out of bounds", r.Len, r.Old, r.New)
	}
	return nil
}
