package cli

import "testing"

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"1": 1, "4096": 4096, "800M": 800 << 20, "2G": 2 << 30, "64MiB": 64 << 20, "64MB": 64 << 20, "3K": 3 << 10,
		"": 0, "0": 0, "-1": 0, "M": 0, "1T": 0, "1.5G": 0, "G1": 0, "9999999999G": 0, "1MM": 0,
	} {
		if got, err := ParseSize(s); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: got %d, %v", s, got, err)
		}
	}
}
