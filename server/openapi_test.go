package server_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/signing"
)

var update = flag.Bool("update", false, "write spec/openapi.json")

// TestOpenAPI holds spec/openapi.json equal to what the server says of itself.
func TestOpenAPI(t *testing.T) {
	const file = "../spec/openapi.json"
	n := servertest.New(t).Start(sqlite(t))
	served := n.Get("/openapi.json")
	if served.Status != 200 {
		t.Fatal(served)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, bytes.TrimSpace(served.Body), "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	if *update {
		if err := os.WriteFile(file, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, pretty.Bytes()) {
		t.Errorf("%s is not what the server says; go test ./server -run OpenAPI -update writes it", file)
	}
}

// TestSpecNamesEveryCode holds the table of codes in spec/api.md to the code.
func TestSpecNamesEveryCode(t *testing.T) {
	page, err := os.ReadFile("../spec/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range signing.Codes() {
		if !bytes.Contains(page, fmt.Appendf(nil, "| `%s` | ", code)) {
			t.Errorf("spec/api.md lacks the code %s", code)
		}
	}
}
