package cli

import (
	"math"
	"strconv"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
)

// ParseSize reads an amount of bytes as people write it on a command line: a
// whole number and K, M or G for powers of 1024, as in 800M.
func ParseSize(s string) (int64, error) {
	text, factor := strings.TrimSuffix(strings.TrimSuffix(s, "B"), "i"), int64(1)
	if i := strings.IndexAny(text, "KMG"); i >= 0 && i == len(text)-1 {
		factor = 1 << (10 * (1 + strings.IndexByte("KMG", text[i])))
		text = text[:i]
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/factor {
		return 0, fault.New(fault.Usage, "cannot read the size %.40q", s).Hint("write it like 800M or 2G")
	}
	return n * factor, nil
}
