package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/rollout"
	"github.com/sealant-os/sealant/server/setlog"
	"github.com/sealant-os/sealant/server/store"
	trustlog "github.com/sealant-os/sealant/trust/setlog"
)

func newAudit() *cobra.Command {
	return &cobra.Command{
		Use: "audit", Short: "prove what was signed, and show what operators did", Args: cobra.NoArgs,
		Long: `Audit compares every set that a ticket was ever issued for with the verified
catalog: was exactly this content published under this name? It computes the tree of
the public log from its records and compares it with the signed head, and checks the
hash chain of the operators' log. It fails if any of these does not hold.`,
		Example: "  sealsrv audit\n  sealsrv audit --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			return atDesk(cmd, needNone, func(ctx context.Context, d *rollout.Desk) error { return audit(ctx, cli.For(cmd), c, d) })
		},
	}
}

// setJSON is one set that was signed, in a document.
type setJSON struct {
	Product  string    `json:"product"`
	Release  string    `json:"release"`
	Baseline string    `json:"baseline"`
	Content  string    `json:"content"`
	Tickets  int64     `json:"tickets"`
	Devices  int64     `json:"devices"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Finding  string    `json:"finding"` // "", or what is wrong
}

type eventJSON struct {
	Seq    int64     `json:"seq"`
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Action string    `json:"action"`
	Target string    `json:"target"`
	Detail string    `json:"detail"`
	Hash   string    `json:"hash"`
}

// auditLog proves the public log of sets, and returns what it holds; nil if
// this server keeps none.
func auditLog(ctx context.Context, c *config, db *store.DB) ([]store.LogRecord, error) {
	if c.Log.Key == "" {
		return nil, nil
	}
	file, err := logKey(c)
	if err != nil {
		return nil, err
	}
	v, err := trustlog.ParseKey(file)
	if err != nil {
		return nil, err
	}
	return setlog.Audit(ctx, db, v)
}

func audit(ctx context.Context, screen *cli.Screen, c *config, d *rollout.Desk) error {
	view, err := d.Source.View(ctx)
	if err != nil {
		return err
	}
	signed, err := d.DB.Authorised(ctx)
	if err != nil {
		return err
	}
	events, broken := d.DB.Events(ctx)
	records, err := auditLog(ctx, c, d.DB)
	if err != nil {
		return err
	}
	logged := map[[48]byte]bool{}
	for _, r := range records {
		logged[r.Content] = true
	}
	sets := []setJSON{}
	bad := 0
	for _, a := range signed {
		s := setJSON{
			Product: a.Product, Release: a.Release, Baseline: hex.EncodeToString(a.Baseline[:]), Content: hex.EncodeToString(a.Content[:]),
			Tickets: a.Tickets, Devices: a.Devices, First: a.First.Truncate(time.Second), Last: a.Last.Truncate(time.Second), Finding: judge(view, a),
		}
		if s.Finding == "" && c.Log.Key != "" && !logged[a.Content] {
			s.Finding = "not in the public log"
		}
		delete(logged, a.Content)
		if s.Finding != "" {
			bad++
		}
		sets = append(sets, s)
	}
	// A set that is in the log without a ticket was about to be signed: it must
	// have been published all the same.
	view.Sets(func(s *catalog.Set) { delete(logged, s.Content) })
	for _, r := range records {
		if logged[r.Content] {
			bad++
			sets = append(sets, setJSON{Release: "(log)", Content: hex.EncodeToString(r.Content[:]), First: r.At, Last: r.At, Finding: "in the public log, not in the catalog"})
		}
	}
	if err := showAudit(screen, sets, events, broken, view.Version, len(records)); err != nil {
		return err
	}
	switch {
	case bad > 0:
		return fault.New(fault.Failed, "%d of %d sets that were signed are not what the catalog holds", bad, len(sets)).
			Hint("treat the signing leaf as stolen: sealsrv leaf new, and revoke the old one")
	case broken != nil:
		return broken
	}
	return nil
}

// judge says what is wrong with a set that was signed.
func judge(view *catalog.View, a store.Authorised) string {
	set, ok := view.Set(a.Product, a.Baseline, a.Release)
	switch {
	case !ok:
		return "not in the catalog (withdrawn, or never published)"
	case set.Content != a.Content:
		return "other content than the catalog's"
	}
	if e, recalled := view.Recall.Find(a.Release); recalled && a.Last.After(e.Date.Add(time.Minute)) {
		return "signed after its recall"
	}
	return ""
}

func showAudit(screen *cli.Screen, sets []setJSON, events []store.Event, broken error, version int64, records int) error {
	if screen.JSON {
		list := []eventJSON{}
		for _, e := range events {
			list = append(list, eventJSON{e.Seq, e.At.Truncate(time.Second), e.Actor, e.Action, e.Target, e.Detail, hex.EncodeToString(e.Hash[:])})
		}
		return screen.Document("sealant.audit/1", map[string]any{"catalog": version, "sets": sets, "log_records": records, "events": list, "log_whole": broken == nil})
	}
	w := tabwriter.NewWriter(screen.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SET\tCONTENT\tTICKETS\tDEVICES\tLAST\tCATALOG")
	for _, s := range sets {
		verdict := screen.Good() + " published"
		if s.Finding != "" {
			verdict = screen.Bad() + " " + s.Finding
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", orBaseline(s.Release), screen.Short(s.Content), s.Tickets, s.Devices, stamp(screen, s.Last), verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if records > 0 {
		screen.Printf("%s public log: %d sets, its head is signed and holds exactly these\n", screen.Good(), records)
	}
	screen.Printf("\n")
	w = tabwriter.NewWriter(screen.Out, 0, 0, 2, ' ', 0)
	for _, e := range events {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", e.Seq, stamp(screen, e.At), e.Actor, e.Action, shortTarget(e.Target), e.Detail)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if broken == nil {
		screen.Printf("%s operators' log: %d events, chain whole\n", screen.Good(), len(events))
	}
	return nil
}

// shortTarget cuts a device id to what people see.
func shortTarget(target string) string {
	if len(target) == 64 {
		return target[:4] + "-" + target[4:8]
	}
	return target
}
