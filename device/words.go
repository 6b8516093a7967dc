package device

import (
	"errors"
	"fmt"
	"time"

	"github.com/sealant-os/sealant/release/catalog"
)

// Size writes a number of bytes for people: "4.1 MB".
func Size(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1e8:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n < 1e9:
		return fmt.Sprintf("%.0f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func cryptexes(n int) string {
	if n == 1 {
		return "1 cryptex"
	}
	return fmt.Sprintf("%d cryptexes", n)
}

// span writes how long: "6 d", "4 min".
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

func signedText(valid, keys int) string { return fmt.Sprintf("%d of %d", valid, keys) }

func isNoTarget(err error) bool { return errors.Is(err, catalog.ErrNoTarget) }
