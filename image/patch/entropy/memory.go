package entropy

import "github.com/sealant-os/sealant/internal/linux"

// Memory is where models take their slots from, in one piece of huge pages.
// The nil Memory is as good, but slower.
type Memory struct{ free []uint32 }

// NewMemory returns memory for models that take so many bytes.
func NewMemory(bytes int64) *Memory { return &Memory{linux.Huge[uint32](int((bytes + 3) / 4))} }

// take is a piece of n zero slots.
func (m *Memory) take(n int) []uint32 {
	if m == nil || n > len(m.free) {
		return make([]uint32, n)
	}
	s := m.free[:n:n]
	m.free = m.free[n:]
	return s
}
