package main

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestDocsNameEveryKey holds the table in docs/server.md to the configuration.
func TestDocsNameEveryKey(t *testing.T) {
	page, err := os.ReadFile("../../docs/server.md")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(prefix string, of reflect.Type)
	walk = func(prefix string, of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			key := prefix + f.Tag.Get("toml")
			if f.Type.Kind() == reflect.Struct {
				walk(key+".", f.Type)
			} else if !strings.Contains(string(page), "`"+key+"`") {
				t.Errorf("docs/server.md lacks the key %s", key)
			}
		}
	}
	walk("", reflect.TypeFor[config]())
}
