package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

func newUp() *cobra.Command {
	var tree, hostname, server string
	cmd := &cobra.Command{
		Use:   "up DIR --os TREE --server URL",
		Short: "make a pretend device in DIR from an operating system tree, and boot it",
		Long: `Up makes a pretend device in the new folder DIR. TREE is the part of its
operating system that this machine lacks: TREE/usr is laid over /usr, and
TREE/usr/lib/sealant holds the baseline's images and the roots of trust.

  sealpub image split --root TREE --cryptex web=/usr/bin/browser --out images
  sealant-lab up /tmp/kiosk --os TREE --server http://127.0.0.1:8470`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := openDevice(args[0])
			if err != nil {
				return err
			}
			if _, err := os.Stat(d.dir); err == nil {
				return fault.New(fault.Failed, "cannot make a device in %s: it exists", d.dir).Hint("sealant-lab boot %s boots it", d.dir)
			}
			if _, err := os.Stat(tree + "/usr"); err != nil {
				return fault.New(fault.Usage, "cannot use %s as an operating system tree: it has no usr", tree)
			}
			if err := os.MkdirAll(d.dir, 0o755); err != nil {
				return fmt.Errorf("cannot make the device: %w", err)
			}
			if err := copyTree(tree, d.path("os")); err != nil {
				return err
			}
			if err := d.make(hostname, server); err != nil {
				return err
			}
			return boot(cmd, d)
		},
	}
	cmd.Flags().StringVar(&tree, "os", "", "operating system tree (required)")
	cmd.Flags().StringVar(&server, "server", "", "URL of its server, for /etc/sealant/agent.toml")
	cmd.Flags().StringVar(&hostname, "hostname", "kiosk-0417", "the device's name")
	cmd.MarkFlagRequired("os")
	return cmd
}

func newBoot() *cobra.Command {
	return &cobra.Command{
		Use:   "boot DIR",
		Short: "boot a pretend device; one that is up restarts",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := openDevice(args[0])
			if err != nil {
				return err
			}
			if err := d.down(); err != nil {
				return err
			}
			return boot(cmd, d)
		},
	}
}

func boot(cmd *cobra.Command, d *device) error {
	printed, err := d.boot()
	cli.For(cmd).Notef("%s", printed)
	return err
}

func newExec() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "exec DIR -- COMMAND [ARG…]",
		Short:   "run a command on a pretend device",
		Example: "  sealant-lab exec /tmp/kiosk -- sealant status",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := openDevice(args[0])
			if err != nil {
				return err
			}
			line := args[1:]
			if line[0] == "--" {
				line = line[1:]
			}
			if len(line) == 0 {
				return fault.New(fault.Usage, "no command to run on %s", args[0])
			}
			run, err := d.command(line...)
			if err != nil {
				return err
			}
			run.Stdin, run.Stdout, run.Stderr = os.Stdin, os.Stdout, os.Stderr
			var exit *exec.ExitError
			if err := run.Run(); errors.As(err, &exit) {
				os.Exit(exit.ExitCode()) // the command's own code is the answer
			} else if err != nil {
				return fmt.Errorf("cannot run %s: %w", line[0], err)
			}
			return nil
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func newDown() *cobra.Command {
	var remove bool
	cmd := &cobra.Command{
		Use:   "down DIR",
		Short: "switch a pretend device off",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := openDevice(args[0])
			if err != nil {
				return err
			}
			if _, err := os.Stat(d.path("state")); err != nil {
				return fault.New(fault.Failed, "cannot switch off %s: no pretend device is there", d.dir)
			}
			if err := d.down(); err != nil || !remove {
				return err
			}
			return os.RemoveAll(d.dir)
		},
	}
	cmd.Flags().BoolVar(&remove, "remove", false, "remove its folder as well")
	return cmd
}
