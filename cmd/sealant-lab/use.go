package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

// past is use of an app that a pretend device is given to remember.
type past struct {
	app     string
	content string // a slot: base, current, previous
	days    int    // the last of them is yesterday
	hours   float64
	crashes int // spread over the days, one a day at most
}

func newUse() *cobra.Command {
	var p past
	cmd := &cobra.Command{
		Use:   "use DIR --app APP",
		Short: "let a pretend device remember days of use, on a simulated clock",
		Long: `Use lets days pass in which an app was used on a pretend device that is down, so
that its judgement needs no real month. It goes through the very recorder that the
agent counts with: launches, passing minutes and exits, with a simulated clock.`,
		Example: "  sealant-lab use /tmp/kiosk --app reader --content base --days 30 --hours 2\n" +
			"  sealant-lab use /tmp/kiosk --app reader --content current --days 3 --hours 2 --crashes 3",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := openDevice(args[0])
			if err != nil {
				return err
			}
			if err := d.remember(p); err != nil {
				return err
			}
			cli.For(cmd).Printf("%d days of %s, %g hours a day with %s, %d crashes\n", p.days, p.app, p.hours, p.content, p.crashes)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.app, "app", "", "id of the app, as apps.d names it (required)")
	f.StringVar(&p.content, "content", "current", "which content it ran with: base, current, previous")
	f.IntVar(&p.days, "days", 30, "how many days, up to yesterday")
	f.Float64Var(&p.hours, "hours", 2, "hours of use on each day")
	f.IntVar(&p.crashes, "crashes", 0, "how many of the days end in a crash")
	cmd.MarkFlagRequired("app")
	return cmd
}

// remember lives through the past.
func (d *device) remember(p past) error {
	if p.days < 1 || p.days > 400 || !(p.hours > 0 && p.hours <= 20) || p.crashes < 0 || p.crashes > p.days {
		return fault.New(fault.Usage, "cannot use an app like that: 1 to 400 days, up to 20 hours a day, at most one crash a day")
	}
	if d.pid() != 0 {
		return fault.New(fault.Busy, "cannot rewrite what %s remembers: it is up", d.dir).Hint("sealant-lab down %s", d.dir)
	}
	arm, err := d.arm(p.content)
	if err != nil {
		return err
	}
	store, err := evidence.Open(d.path("state/evidence"))
	if err != nil {
		return err
	}
	recorder, err := evidence.NewRecorder(store)
	if err != nil {
		return err
	}
	const day = 24 * time.Hour
	at := evidence.Instant{Wall: time.Now().UTC().Truncate(day).Add(-time.Duration(p.days) * day).Add(time.Hour), Boot: "simulated"}
	for i := range p.days {
		morning := at
		launch := evidence.Launch{PID: i + 1, App: p.app, Arm: arm}
		if err := recorder.Launch(launch, at); err != nil {
			return err
		}
		for used := time.Duration(0); used < time.Duration(p.hours*float64(time.Hour)); used += time.Minute {
			at = at.Add(time.Minute)
			recorder.Tick(at, nil)
		}
		exit := evidence.Exit{PID: launch.PID}
		if i >= p.days-p.crashes {
			exit.Signal = syscall.SIGABRT
		}
		if _, _, err := recorder.Exit(exit, at); err != nil {
			return err
		}
		at = morning.Add(day)
	}
	return recorder.Flush()
}

// arm is the content in a slot of the device.
func (d *device) arm(slot string) (evidence.Arm, error) {
	if slot != "base" && slot != "current" && slot != "previous" {
		return evidence.Arm{}, fault.New(fault.Usage, "unknown content %q: base, current or previous", slot)
	}
	data, err := os.ReadFile(d.path("state", slot, "set.json"))
	if errors.Is(err, os.ErrNotExist) {
		return evidence.Arm{}, fault.New(fault.Failed, "the device has nothing in %s", slot)
	}
	if err != nil {
		return evidence.Arm{}, err
	}
	var set struct {
		Baseline string `json:"baseline"`
		Release  string `json:"release"`
		Level    int    `json:"level"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return evidence.Arm{}, fmt.Errorf("cannot read the set in %s: %w", slot, err)
	}
	return evidence.Arm{Base: set.Baseline, Release: set.Release, Level: set.Level}, nil
}
