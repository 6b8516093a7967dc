package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/running"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/units"
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
		Use:   "relaunch APP | UNIT",
		Short: "bring an app or a service onto the newest installed content",
		Long: `Relaunch names the processes of an app that run on old content, asks them to end, and
starts the app again on the content that is staged, in the background. Processes that
don't end in time are named and left alone, unless --force is given.

A service, by its name in apps.d or by that of its unit, is restarted by systemd, and
nothing but it: a service that does not run stays so, and gets the content at its next
start; of a template all instances are restarted. A service that does not come up goes
back to the content of the last boot, and the error says why it failed. Who may
relaunch services polkit decides (org.sealant.relaunch), where it runs; else root.`,
		Example: "  sealant relaunch browser\n  sealant relaunch mail --dry-run\n  sudo sealant relaunch nginx.service",
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
	// What became of the service, or of each instance of a template.
	Done   []units.Outcome `json:"done,omitempty"`
	Remain []running.Use   `json:"remain"` // on old content even so
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
	_, unknown := launch.FindApp(apps, id)
	service, err := device.ServiceOf(apps, id)
	switch {
	case err == nil && (unknown == nil || strings.Contains(id, ".") || units.Present(st)):
		return relaunchService(cmd, service, f)
	case unknown != nil && strings.Contains(id, "."):
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
	if result.PID, err = again(cmd.Context(), st, plan, f); err != nil {
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

// relaunchService has the agent restart a service; it sees all processes.
func relaunchService(cmd *cobra.Command, app policy.App, f relaunchFlags) error {
	s := cli.For(cmd)
	before, err := ask[device.Running](cmd, "ps", none{})
	if err != nil {
		return err
	}
	result := relaunched{App: app.ID, Unit: app.Unit, Ended: append([]running.Use{}, before.Pick(app)...), Foreign: []running.Use{}, Remain: []running.Use{}}
	if len(result.Ended) > 0 {
		s.Notef("%s on old content: %s\n", app.Name, running.Names(result.Ended))
	}
	if f.dryRun {
		return finishRelaunch(s, result)
	}
	done, err := ask[device.Relaunched](cmd, "relaunch", device.RelaunchOptions{App: app.Unit})
	if err != nil {
		return err
	}
	result.Done = done.Done
	after, err := ask[device.Running](cmd, "ps", none{})
	if err != nil {
		return err
	}
	result.Remain = append(result.Remain, after.Pick(app)...)
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
	started, err := launch.Start(st, nil, device.Confine(st), p)
	if err != nil {
		return 0, err
	}
	return started.PID, started.Settled(ctx)
}

func relaunchOutcome(r relaunched) string {
	switch {
	case len(r.Remain) > 0:
		return "was restarted, but not onto the new content"
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
