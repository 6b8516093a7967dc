package linux

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is what the kernel gives at once where it can, in bytes.
const hugePage = 2 << 20

// Huge is make([]T, n) in huge pages, where the kernel has them and n elements
// fill one. Page by page, as it is touched here and there, much memory takes
// longer to come than what is done with it. It takes up to 4 MiB more than make.
func Huge[T byte | int32 | uint32 | uint64](n int) []T {
	var one T
	size := int(unsafe.Sizeof(one))
	if n < hugePage/size {
		return make([]T, n)
	}
	whole := (n*size + hugePage - 1) &^ (hugePage - 1)
	s := make([]T, (whole+hugePage)/size)
	skip := int(-uintptr(unsafe.Pointer(&s[0]))&(hugePage-1)) / size
	s = s[skip : skip+n : skip+n]
	_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), whole), unix.MADV_HUGEPAGE) // as good, but slower
	return s
}
