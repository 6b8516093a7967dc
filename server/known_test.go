package server_test

import (
	"net/http"
	"testing"

	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/store/storetest"
)

// TestWhatIsRememberedDecidesNothing has two servers on one database: what one
// remembers of a device is changed through the other, and counts at once.
func TestWhatIsRememberedDecidesNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		w := servertest.New(t)
		w.Release(1, 100)
		one, two := w.Start(database), w.Start(database)
		d, ctx := one.Enrolled(), t.Context()
		nonce := 0
		ask := func(status int, code string) {
			t.Helper()
			for _, n := range []*servertest.Node{one, two} {
				nonce++
				want(t, d.Ask(n, 1, nonce), status, code)
			}
		}
		ask(http.StatusOK, "")
		for range 2 {
			if err := two.DB.Block(ctx, d.ID, "stolen", w.Now()); err != nil {
				t.Fatal(err)
			}
			ask(http.StatusForbidden, "refused")
			ask(http.StatusForbidden, "refused")
			if err := one.DB.Unblock(ctx, d.ID); err != nil {
				t.Fatal(err)
			}
			ask(http.StatusOK, "")
		}
		if list, err := one.DB.Tickets(ctx, d.ID, 100); err != nil || len(list) != 1+3*2 {
			t.Errorf("%d tickets were recorded: %v", len(list), err)
		}
		// One server saw the device unknown; it enrols at the other.
		late := w.Device()
		for _, n := range []*servertest.Node{one, two} {
			want(t, late.Ask(n, 1, 1), http.StatusUnauthorized, "unknown-device")
		}
		want(t, late.Enrol(two, two.Token(1)), http.StatusOK, "")
		want(t, late.Ask(one, 1, 2), http.StatusOK, "")
	})
}
