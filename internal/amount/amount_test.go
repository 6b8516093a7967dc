package amount

import (
	"testing"
	"time"
)

func TestAmounts(t *testing.T) {
	for n, want := range map[int64]string{
		-7: "-7 bytes", 0: "0 bytes", 999: "999 bytes", 1000: "1 000 bytes", 29_025: "29 025 bytes", 99_999: "99 999 bytes", 100_000: "100 kB",
		4_100_000: "4.1 MB", 212_000_000: "212.0 MB", 1_500_000_000: "1.5 GB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-1: "0 s", 59 * time.Second: "59 s", 4 * time.Minute: "4 min", 47 * time.Hour: "47 h", 6*24*time.Hour + time.Hour: "6 d"} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
}
