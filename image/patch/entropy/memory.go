package entropy

import (
	"unsafe"

	"github.com/sealant-os/sealant/internal/linux"
)

// Memory is what models are made of, in one piece of huge pages: thousands of
// small pages take longer to come than a small patch to decode. The nil Memory
// is as good, but slower.
type Memory struct{ free []uint64 }

// NewMemory returns memory for models that take so many bytes.
func NewMemory(bytes int64) *Memory { return &Memory{linux.Huge[uint64](int((bytes + 7) / 8))} }

// Take is make([]T, n), out of the memory as long as there is some.
func Take[T byte | uint16 | int32 | uint32](m *Memory, n int) []T {
	var one T
	words := (n*int(unsafe.Sizeof(one)) + 7) / 8
	if m == nil || words > len(m.free) || n == 0 {
		return make([]T, n)
	}
	s := unsafe.Slice((*T)(unsafe.Pointer(&m.free[0])), n)
	m.free = m.free[words:]
	return s
}
