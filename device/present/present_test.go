package present

import (
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

func TestSource(t *testing.T) {
	c := Content{"web", store.Digest{0xab, 1}}
	if got, ok := parseSource(c.Source()); !ok || got != c {
		t.Errorf("%+v, %v", got, ok)
	}
	good := c.Source()
	for _, bad := range []string{"", "sealant:web", "x" + good, good + "0", strings.ToUpper(good), "/dev/loop0", "sealant::" + good[12:]} {
		if got, ok := parseSource(bad); ok && got.Name != "" {
			t.Errorf("%q reads as %+v", bad, got)
		}
	}
	if _, ok := Of(&linux.MountPoint{Type: "fuse", Source: good}); ok {
		t.Error("a mount that anybody can make counts as content")
	}
}
