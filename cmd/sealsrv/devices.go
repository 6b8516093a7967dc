package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/identity"
)

func newDevices() *cobra.Command {
	cmd := &cobra.Command{
		Use: "devices", Short: "the devices that enrolled",
		Long: `A device is named by its id, or by the first digits of it: 7c1e-90af, as the
device itself shows it, or all 64.`,
	}
	cmd.AddCommand(newDevicesList(), newDevicesShow(), newDevicesBlock(), newDevicesUnblock())
	return cmd
}

// deviceJSON is one device in a document.
type deviceJSON struct {
	ID          string     `json:"id"`
	Short       string     `json:"short"`
	Product     string     `json:"product"`
	Baseline    string     `json:"baseline"`
	Release     string     `json:"release"` // of its latest ticket, "" for the baseline
	Token       string     `json:"token"`
	Enrolled    time.Time  `json:"enrolled"`
	Seen        time.Time  `json:"seen"`
	Blocked     *time.Time `json:"blocked,omitempty"`
	BlockReason string     `json:"block_reason,omitempty"`
	Diverged    *time.Time `json:"diverged,omitempty"` // when a dead nonce last came back
	Divergences int64      `json:"divergences"`
}

func deviceDocument(d store.Device) deviceJSON {
	id := identity.ID(d.ID)
	doc := deviceJSON{
		ID: id.Hex(), Short: id.String(), Product: d.Product, Baseline: release.Digest(d.Baseline).String(), Release: d.Release,
		Token: d.Token, Enrolled: d.Enrolled.Truncate(time.Second), Seen: d.Seen.Truncate(time.Second),
		BlockReason: d.BlockReason, Divergences: d.Divergences,
	}
	for to, at := range map[**time.Time]time.Time{&doc.Blocked: d.Blocked, &doc.Diverged: d.Diverged} {
		if !at.IsZero() {
			at = at.Truncate(time.Second)
			*to = &at
		}
	}
	return doc
}

func newDevicesList() *cobra.Command {
	var f store.Filter
	cmd := &cobra.Command{
		Use: "list", Short: "list devices", Args: cobra.NoArgs,
		Example: `  sealsrv devices list --limit 20
  sealsrv devices list --cloned
  sealsrv devices list --release SI-2026-0007 --json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				devices, err := db.Devices(ctx, f)
				if err != nil {
					return err
				}
				all, blocked, err := db.Counts(ctx)
				if err != nil {
					return err
				}
				screen := cli.For(cmd)
				list := []deviceJSON{}
				for _, d := range devices {
					list = append(list, deviceDocument(d))
				}
				if screen.JSON {
					return screen.Document("sealant.devices/1", map[string]any{"enrolled": all, "blocked": blocked, "devices": list})
				}
				w := tabwriter.NewWriter(screen.Out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "DEVICE\tPRODUCT\tLATEST TICKET\tSEEN\tSTATE")
				for _, d := range list {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.Short, d.Product, orBaseline(d.Release), stamp(screen, d.Seen), deviceState(d))
				}
				if err := w.Flush(); err != nil {
					return err
				}
				screen.Notef("%d shown, %d enrolled, %d blocked\n", len(list), all, blocked)
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.Product, "product", "", "only devices of this product")
	flags.StringVar(&f.Release, "release", "", "only devices whose latest ticket is for this improvement")
	flags.BoolVar(&f.Blocked, "blocked", false, "only blocked devices")
	flags.BoolVar(&f.Cloned, "cloned", false, "only devices whose identity seems to be used twice")
	flags.IntVar(&f.Limit, "limit", 1000, "show at most so many; 0 for all")
	return cmd
}

func orBaseline(id string) string {
	if id == "" {
		return "baseline"
	}
	return id
}

func deviceState(d deviceJSON) string {
	switch {
	case d.Blocked != nil:
		return "blocked: " + d.BlockReason
	case d.Diverged != nil:
		return "cloned? a dead nonce came back"
	}
	return "ok"
}

// findDevice finds the one device that a person means.
func findDevice(ctx context.Context, db *store.DB, name string) (store.Device, error) {
	digits := strings.ReplaceAll(name, "-", "")
	prefix, err := hex.DecodeString(digits)
	if err != nil || len(prefix) == 0 || len(prefix) > 32 {
		return store.Device{}, fault.New(fault.Usage, "%q is not a device id", name).Hint("like 7c1e-90af, or all 64 digits")
	}
	found, err := db.Devices(ctx, store.Filter{Prefix: prefix, Limit: 2})
	switch {
	case err != nil:
		return store.Device{}, err
	case len(found) == 0:
		return store.Device{}, fault.New(fault.Usage, "no device %s is enrolled", name)
	case len(found) > 1:
		return store.Device{}, fault.New(fault.Usage, "more than one device begins with %s", name).Hint("give more digits")
	}
	return found[0], nil
}

// shownTickets is how many tickets devices show lists.
const shownTickets = 20

func newDevicesShow() *cobra.Command {
	return &cobra.Command{
		Use: "show DEVICE", Short: "one device and its tickets", Args: cobra.ExactArgs(1),
		Example: "  sealsrv devices show 7c1e-90af",
		RunE: func(cmd *cobra.Command, args []string) error {
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				d, err := findDevice(ctx, db, args[0])
				if err != nil {
					return err
				}
				tickets, err := db.Tickets(ctx, d.ID, shownTickets)
				if err != nil {
					return err
				}
				return showDevice(cli.For(cmd), deviceDocument(d), tickets)
			})
		},
	}
}

func showDevice(screen *cli.Screen, d deviceJSON, tickets []store.Ticket) error {
	type ticketJSON struct {
		Release string    `json:"release"`
		Issued  time.Time `json:"issued"`
		Served  int64     `json:"served"`
		Nonce   string    `json:"nonce"`
		Content string    `json:"content"`
		Leaf    string    `json:"leaf"`
		Digest  string    `json:"digest"`
	}
	list := []ticketJSON{}
	for _, t := range tickets {
		list = append(list, ticketJSON{
			Release: t.Release, Issued: t.Issued.Truncate(time.Second), Served: t.Served, Nonce: hex.EncodeToString(t.Nonce),
			Content: hex.EncodeToString(t.Content[:]), Leaf: hex.EncodeToString(t.Leaf[:]), Digest: hex.EncodeToString(t.Digest[:]),
		})
	}
	if screen.JSON {
		return screen.Document("sealant.device/1", map[string]any{"device": d, "tickets": list})
	}
	w := tabwriter.NewWriter(screen.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Device\t%s\t%s\n", d.Short, d.ID)
	fmt.Fprintf(w, "Product\t%s\tbaseline %s\n", d.Product, screen.Short(d.Baseline))
	fmt.Fprintf(w, "Enrolled\t%s\tby token %s\n", stamp(screen, d.Enrolled), d.Token)
	fmt.Fprintf(w, "Seen\t%s\tlatest ticket for %s\n", stamp(screen, d.Seen), orBaseline(d.Release))
	fmt.Fprintf(w, "State\t%s\n", deviceState(d))
	if err := w.Flush(); err != nil {
		return err
	}
	if d.Diverged != nil {
		screen.Printf("%s a nonce that was dead came back %d time(s), last %s: two devices share this identity,\n  or one was set back to an older copy\n",
			screen.Warn(), d.Divergences, stamp(screen, *d.Diverged))
	}
	screen.Printf("\n")
	w = tabwriter.NewWriter(screen.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TICKET\tFOR\tISSUED\tSENT\tNONCE\tLEAF")
	for _, t := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d×\t%s\t%s\n", t.Digest[:8], orBaseline(t.Release), stamp(screen, t.Issued), t.Served, screen.Short(t.Nonce), t.Leaf[:8])
	}
	return w.Flush()
}

func newDevicesBlock() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "block DEVICE", Short: "sign nothing more for a device", Args: cobra.ExactArgs(1),
		Long: `Block ends all signing for a device at once, in every server on the database. What
it has it keeps: tickets are verified offline. A blocked device can't enrol again.`,
		Example: `  sealsrv devices block 7c1e-90af --reason "stolen"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return fault.New(fault.Usage, "--reason is missing")
			}
			return changeDevice(cmd, args[0], "device.block", reason, func(ctx context.Context, db *store.DB, id [32]byte) error {
				return db.Block(ctx, id, reason, time.Now())
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the operators' log")
	return cmd
}

func newDevicesUnblock() *cobra.Command {
	return &cobra.Command{
		Use: "unblock DEVICE", Short: "let a blocked device in again", Args: cobra.ExactArgs(1),
		Example: "  sealsrv devices unblock 7c1e-90af",
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeDevice(cmd, args[0], "device.unblock", "", func(ctx context.Context, db *store.DB, id [32]byte) error {
				return db.Unblock(ctx, id)
			})
		},
	}
}

func changeDevice(cmd *cobra.Command, name, action, detail string, change func(context.Context, *store.DB, [32]byte) error) error {
	return atStore(cmd, func(ctx context.Context, db *store.DB) error {
		d, err := findDevice(ctx, db, name)
		if err != nil {
			return err
		}
		if err := change(ctx, db, d.ID); errors.Is(err, store.ErrNotFound) {
			return fault.New(fault.Usage, "no device %s is enrolled", name)
		} else if err != nil {
			return err
		}
		id := identity.ID(d.ID)
		if err := db.Note(ctx, store.Event{At: time.Now(), Actor: actor(), Action: action, Target: id.Hex(), Detail: detail}); err != nil {
			return err
		}
		if d, err = db.Device(ctx, d.ID); err != nil {
			return err
		}
		screen := cli.For(cmd)
		if screen.JSON {
			return screen.Document("sealant.device/1", map[string]any{"device": deviceDocument(d)})
		}
		screen.Notef("%s %s: %s\n", screen.Good(), id, deviceState(deviceDocument(d)))
		return nil
	})
}
