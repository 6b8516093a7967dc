package device

import (
	"errors"
	"fmt"

	"github.com/sealant-os/sealant/release/catalog"
)

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

func signedText(valid, keys int) string { return fmt.Sprintf("%d of %d", valid, keys) }

func isNoTarget(err error) bool { return errors.Is(err, catalog.ErrNoTarget) }
