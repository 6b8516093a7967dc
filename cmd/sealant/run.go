package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

func newRun() *cobra.Command {
	var wrap bool
	cmd := &cobra.Command{
		Use:   "run APP [-- ARGS...] | run -- COMMAND [ARGS...]",
		Short: "start a program on the newest installed content",
		Long: `Run starts an app of apps.d, or any command, so that it sees the content that is
staged (else the one that the device booted) at /usr/lib/cryptexes. Everything it
starts sees the same, for as long as it lives; the rest of the system is not touched.
Arguments after -- stand in the place of those that apps.d gives the app.

The program runs as you, with your groups, environment, folder, terminal and limits,
and with no more privilege. Root starts it at once; for others the agent does.
The exit code is the program's (128 + N if signal N ended it).

A container or sandbox that the program makes of the system's own /usr sees the staged
content too: bind /usr with what is mounted below it (mount --rbind, as bwrap, podman
and systemd-nspawn do).

With --desktop-entries nothing is started: for the desktop entries and the session
bus's services that start APP, ones are written that start it by sealant run, for you
in ~/.local/share, as root for everybody in /usr/local/share. Once is enough; remove
the files to go back.`,
		Example: "  sudo sealant run --desktop-entries browser\n  sealant run browser\n  sealant run reader -- /home/me/letter.txt\n  sealant run -- openssl version",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if wrap {
				return writeDesktopEntries(cmd, args)
			}
			return run(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&wrap, "desktop-entries", false, "write desktop entries that start the app this way")
	return cmd
}

func run(cmd *cobra.Command, args []string) error {
	app, args, err := appAndArgs(cmd, args)
	if err != nil {
		return err
	}
	st, err := store.Open(rootOf(cmd))
	if err != nil {
		return err
	}
	code, err := launch.Run(st, device.Confine(st), app, args)
	if err == nil {
		os.Exit(code)
	}
	return err
}

// appAndArgs tells "APP", "APP -- ARGS" and "-- COMMAND ARGS" apart.
func appAndArgs(cmd *cobra.Command, args []string) (app string, rest []string, err error) {
	switch dash := cmd.ArgsLenAtDash(); {
	case dash == 0:
		return "", args, nil
	case dash == 1 || dash < 0 && len(args) == 1:
		return args[0], args[1:], nil
	}
	return "", nil, fault.New(fault.Usage, "cannot tell app and arguments apart").
		Hint("sealant run APP -- ARGS, or sealant run -- COMMAND ARGS")
}

func appsOf(st *store.Store) ([]policy.App, error) {
	config, err := policy.Load(st.ConfigDir())
	if err != nil {
		return nil, err
	}
	return config.Apps, nil
}

// newLaunchChild is what the agent starts itself as, to become a program, where
// sealant-launch is not installed.
func newLaunchChild() *cobra.Command {
	return &cobra.Command{
		Use: launch.ChildCommand + " ROOT", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "become a launched program (for the agent)",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := launch.Child(args[0]); err != nil {
				return cli.Exit(fault.KindOf(err)) // whoever started it was told
			}
			return nil
		},
	}
}

// newLaunchFailed is what sealant-launch becomes when it can't launch.
func newLaunchFailed() *cobra.Command {
	return &cobra.Command{
		Use: launch.FailedCommand + " FAILURE", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "say why a launch failed (for sealant-launch)",
		RunE: func(_ *cobra.Command, args []string) error {
			return launch.ReadFailure(args[0])
		},
	}
}
