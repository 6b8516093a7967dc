package device

import (
	"context"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/localapi"
	"github.com/sealant-os/sealant/internal/fault"
)

func TestRation(t *testing.T) {
	var r ration
	now := time.Now()
	took := func() (n int) {
		for r.take(now) {
			n++
		}
		return n
	}
	for _, want := range []struct {
		later time.Duration
		n     int
	}{{0, rationMost}, {rationEvery - 1, 0}, {1, 1}, {3 * rationEvery, 3}, {24 * time.Hour, rationMost}} {
		now = now.Add(want.later)
		if n := took(); n != want.n {
			t.Errorf("%v later: %d, not %d", want.later, n, want.n)
		}
	}
}

// Whoever checks without end can't keep root from it.
func TestChecksOfOthersAreRationed(t *testing.T) {
	allow := mayCheck(func() (*Device, error) { return nil, context.Canceled })
	for range rationMost {
		if err := allow(t.Context(), localapi.Peer{UID: 1234}); err != nil {
			t.Fatal(err)
		}
	}
	if err := allow(t.Context(), localapi.Peer{UID: 1234}); fault.KindOf(err) != fault.Busy {
		t.Error(err)
	}
	if err := allow(t.Context(), localapi.Peer{}); err != nil {
		t.Error(err)
	}
}
