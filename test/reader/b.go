//go:build b

package main

import (
	"fmt"
	"path/filepath"
)

func allow(name string, depth int) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("refused: %s lies outside the document's folder", name)
	}
	if depth > 8 {
		return fmt.Errorf("refused: %s includes itself", name)
	}
	return nil
}

// gallery is what the new release forgot to make.
var gallery map[string]*struct{ title string }

func picture(name string) string { return fmt.Sprintf("[picture %s]", gallery[name].title) }
