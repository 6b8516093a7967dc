package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/running"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// relaunchFlags are the options of a relaunch.
type relaunchFlags struct {
	timeout time.Duration
	force   bool
	dryRun  bool
}

func newRelaunch() *cobra.Command {
	var f relaunchFlags
	cmd := &cobra.Command{
		Use:   "relaunch APP",
		Short: "bring an app onto the newest installed content",
		Long: `Relaunch names the processes of an app that run on old content, asks them to end, and
starts the app again on the content that is staged, in the background. A service is
restarted by systemd. Processes that don't end in time are named and left alone,
unless --force is given.`,
		Example: "  sealant relaunch browser\n  sealant relaunch mail --dry-run",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return relaunch(cmd, args[0], f)
		},
	}
	cmd.Flags().DurationVar(&f.timeout, "timeout", 10*time.Second, "how long processes may take to end")
	cmd.Flags().BoolVar(&f.force, "force", false, "kill what has not ended by then; unsaved work is lost")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only name the processes")
	return cmd
}

// relaunched is the document of a relaunch.
type relaunched struct {
	App     string        `json:"app"`
	Ended   []running.Use `json:"ended"`   // or to be ended, on a dry run
	Foreign []running.Use `json:"foreign"` // of other users
	PID     int           `json:"pid,omitempty"`
	Unit    string        `json:"unit,omitempty"`
	Remain  []running.Use `json:"remain"` // on old content even so
}

func relaunch(cmd *cobra.Command, id string, f relaunchFlags) error {
	s := cli.For(cmd)
	st, err := store.Open(rootOf(cmd))
	if err != nil {
		return err
	}
	apps, err := appsOf(st)
	if err != nil {
		return err
	}
	plan, err := running.NewPlan(st, apps, id)
	if err != nil {
		return err
	}
	result := relaunched{App: id, Ended: append([]running.Use{}, plan.Old...), Foreign: append([]running.Use{}, plan.Foreign...), Remain: []running.Use{}}
	nameProcesses(s, plan)
	if f.dryRun || len(plan.Old) == 0 {
		return finishRelaunch(s, result)
	}
	if plan.App.Unit != "" {
		result.Unit = plan.App.Unit
		err = plan.RestartUnit(cmd.Context())
	} else {
		result.PID, err = again(cmd.Context(), st, plan, f)
	}
	if err != nil {
		return err
	}
	after, err := running.NewPlan(st, apps, id)
	if err != nil {
		return err
	}
	result.Remain = append(result.Remain, after.Old...)
	s.Notef("%s %s %s\n", s.Good(), plan.App.Name, relaunchOutcome(result))
	return finishRelaunch(s, result)
}

func nameProcesses(s *cli.Screen, plan *running.Plan) {
	switch {
	case len(plan.Old) > 0:
		s.Notef("%s on old content: %s\n", plan.App.Name, running.Names(plan.Old))
	case len(plan.Foreign) == 0:
		s.Notef("%s: nothing of it runs on old content\n", plan.App.Name)
	}
	if len(plan.Foreign) > 0 {
		s.Notef("%s of other users, who relaunch it themselves: %s\n", s.Warn(), running.Names(plan.Foreign))
	}
}

// again ends the old processes and starts the app.
func again(ctx context.Context, st *store.Store, plan *running.Plan, f relaunchFlags) (pid int, err error) {
	if err := plan.End(ctx, f.timeout, f.force); err != nil {
		return 0, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	if !linux.Root() {
		pid, _, err = launch.Through(ctx, st, launch.Request{App: plan.App.ID, Env: os.Environ(), Dir: dir, Detached: true})
		return pid, err
	}
	p, err := launch.Resolve(nil, "", plan.App.Command)
	if err != nil {
		return 0, err
	}
	p.App, p.Env, p.Dir = plan.App.ID, os.Environ(), dir
	started, err := launch.Start(st, nil, p)
	if err != nil {
		return 0, err
	}
	return started.PID, started.Settled(ctx)
}

func relaunchOutcome(r relaunched) string {
	switch {
	case len(r.Remain) > 0:
		return "was restarted, but not onto the new content"
	case r.Unit != "":
		return "was restarted (" + r.Unit + ")"
	}
	return sprintf("runs on the new content, process %d", r.PID)
}

// finishRelaunch prints the document; what stays on old content is told by the
// exit code.
func finishRelaunch(s *cli.Screen, r relaunched) error {
	if s.JSON {
		if err := s.Document("sealant.relaunch/1", r); err != nil {
			return err
		}
	}
	switch {
	case len(r.Remain) > 0:
		s.Notef("%s on old content until the device restarts: %s\n", s.Warn(), running.Names(r.Remain))
		return cli.Exit(fault.Restart)
	case len(r.Foreign) > 0:
		return cli.Exit(fault.Relaunch)
	}
	return nil
}
