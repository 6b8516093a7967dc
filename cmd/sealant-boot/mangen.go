//go:build mangen

package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
)

//go:embed sealant-boot.8
var page []byte

// With the build tag mangen the program writes its man page, as the others do.
func init() {
	if len(os.Args) != 3 || os.Args[1] != "mangen" {
		return
	}
	if err := os.WriteFile(filepath.Join(os.Args[2], "sealant-boot.8"), page, 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
