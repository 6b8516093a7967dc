package rollout_test

import (
	"slices"
	"testing"

	"github.com/sealant-os/sealant/internal/report"
	"github.com/sealant-os/sealant/server/rollout"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/store"
)

// A rollout pauses by itself when devices that were offered the improvement crash
// clearly more often, once, and not because of crashes that all have.
func TestGuard(t *testing.T) {
	_, n, d := start(t, 2)
	ctx := t.Context()
	for _, id := range []string{servertest.ID(1), servertest.ID(2)} {
		if _, err := d.Start(ctx, id, 20); err != nil {
			t.Fatal(err)
		}
	}
	count := func(release, app, arm string, risk, crashed int64) {
		t.Helper()
		_, err := n.DB.AddCounts(ctx, nil, store.Counts{Cells: []store.Cell{{
			Release: release, OSBuild: "42.3.0", Arch: "amd64", Arm: arm, Day: "2026-11-23", App: app, AtRisk: risk, Crashed: crashed,
		}}}, d.Now())
		if err != nil {
			t.Fatal(err)
		}
	}
	guard := func(want ...string) {
		t.Helper()
		paused, err := d.Guard(ctx)
		if err != nil || !slices.Equal(paused, want) {
			t.Errorf("paused %v, want %v: %v", paused, want, err)
		}
	}
	guard()
	for _, id := range []string{servertest.ID(1), servertest.ID(2)} {
		count(id, "mail", report.Offered, 1000, 30)
		count(id, "mail", report.Control, 4000, 120)
		count(id, "browser", report.Offered, 1000, 10)
		count(id, "browser", report.Control, 4000, 40)
	}
	guard()
	count(servertest.ID(2), "mail", report.Offered, 0, 40)
	guard(servertest.ID(2))
	if since, err := n.DB.Paused(ctx, servertest.ID(2)); err != nil || since.IsZero() {
		t.Errorf("paused since %v, %v", since, err)
	}
	guard()
	events, err := n.DB.Events(ctx)
	if err != nil || events[len(events)-1].Actor != rollout.GuardActor {
		t.Errorf("%+v, %v", events[len(events)-1], err)
	}
	// A person who goes on is not overruled.
	if _, err := d.Resume(ctx, servertest.ID(2), 30); err != nil {
		t.Fatal(err)
	}
	guard()
	// Nothing more is offered, so there is nothing to pause.
	if _, err := d.Halt(ctx, servertest.ID(1), "a test"); err != nil {
		t.Fatal(err)
	}
	count(servertest.ID(1), "mail", report.Offered, 0, 100)
	guard()
}
