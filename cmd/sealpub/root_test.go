package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/publish"
)

// TestRootShowWarns looks at a vendor's folder as time goes by.
func TestRootShowWarns(t *testing.T) {
	v, err := publish.Init(filepath.Join(t.TempDir(), "vendor"), publish.Setup{Product: "ExampleOS", OSVersion: "1", Throwaway: true})
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	for _, tt := range []struct {
		after           time.Duration
		root, timestamp string
		says            string
	}{
		{0, "good", "good", ""},
		{6*day + 1*time.Hour, "good", "soon", "timestamp expires on .*. Run: sealpub refresh"},
		{8 * day, "good", "expired", "timestamp has expired: devices refuse the catalog. Run: sealpub refresh"},
		{300 * day, "good", "expired", ""},
		{306 * day, "soon", "expired", "Run: sealpub root renew root"},
		{366 * day, "expired", "expired", "root has expired: devices refuse the catalog. Run: sealpub root renew root"},
	} {
		now := time.Now().Add(tt.after)
		roles, err := standing(v, now)
		if err != nil || len(roles) != 7 {
			t.Fatalf("%d roles, %v", len(roles), err)
		}
		if root, stamp := roles[0], roles[6]; root.State != tt.root || stamp.State != tt.timestamp {
			t.Errorf("after %v: root %s, timestamp %s", tt.after, root.State, stamp.State)
		}
		var out bytes.Buffer
		printStanding(&cli.Screen{Out: &out, Err: &out}, roles, now)
		for _, part := range strings.Split(tt.says, ".*") {
			if !strings.Contains(out.String(), part) {
				t.Errorf("after %v: %s does not say %q", tt.after, out.String(), part)
			}
		}
	}
}
