package entropy

import (
	"unsafe"

	"github.com/sealant-os/sealant/internal/linux"
)

// Memory is where models take their slots from, in one piece that the kernel
// gives at once: page by page, as models touch it here and there, takes longer
// than decoding a small patch. The nil Memory is as good, but slower.
type Memory struct{ free []uint32 }

// hugePage is what the kernel gives at once where it can, in bytes.
const hugePage = 2 << 20

// NewMemory returns memory for models that take so many bytes.
func NewMemory(bytes int64) *Memory {
	b := make([]uint32, (bytes+2*hugePage)/4)
	skip := -uintptr(unsafe.Pointer(&b[0])) & (hugePage - 1)
	b = b[skip/4:]
	b = b[:(bytes+hugePage-1)/hugePage*hugePage/4]
	linux.Populate(unsafe.Slice((*byte)(unsafe.Pointer(&b[0])), 4*len(b)))
	return &Memory{b}
}

// take is a piece of n zero slots.
func (m *Memory) take(n int) []uint32 {
	if m == nil || n > len(m.free) {
		return make([]uint32, n)
	}
	s := m.free[:n:n]
	m.free = m.free[n:]
	return s
}
