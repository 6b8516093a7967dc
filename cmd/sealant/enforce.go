package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/enforce"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

func newEnforce() *cobra.Command {
	c := &cobra.Command{
		Use:   "enforce",
		Short: "what the kernel lets execute from cryptexes",
		Long: `From a cryptex only those files execute that its trust cache lists, and a strict
app (apps.d) executes nothing that isn't sealed. Programs in the kernel see to
that (BPF LSM); policy says how strictly (trust.execution: off, audit, enforce).
What was refused is in the journal and counted.`,
		Example: "  sealant enforce status\n  journalctl SEALANT_EVENT=denied",
	}
	c.AddCommand(newEnforceStatus(), newEnforceLoad(), newEnforceStrict(), newEnforceUnload(), newEnforceGenerate())
	return c
}

func newEnforceStatus() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "the mode, the lists that the kernel holds, and what it refused",
		Long:    "Status says what is in force. It needs root.",
		Example: "  sealant enforce status --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := openDevice(cmd)
			if err != nil {
				return err
			}
			e, err := d.Execution()
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.enforce/1", e)
			}
			printf(s, "Mode %s  (policy: %s)\n", e.Mode, e.Policy)
			if e.Text != "" {
				printf(s, "  %s\n", e.Text)
			}
			printf(s, "Refused %d  audited %d  not told %d\n", e.Counts.Refused, e.Counts.Audited, e.Counts.Lost)
			for _, l := range e.Lists {
				printf(s, "  %-12s %.8s…  %d files\n", l.Name, l.Image, l.Entries)
			}
			return nil
		},
	}
}

func newEnforceLoad() *cobra.Command {
	return &cobra.Command{
		Use:   "load",
		Short: "put the guard into the kernel, as policy says",
		Long: `Load puts the programs into the kernel, teaches them the verified trust cache of
every cryptex that is attached, and sets the mode that policy wants. The unit
sealant-enforce.service does so early at boot, and the agent again and again. A
kernel that can't is a failure only where somebody has set trust.execution.`,
		Example: "  sealant enforce load",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := openDevice(cmd)
			if err != nil {
				return err
			}
			err = d.LoadExecution(cmd.Context())
			if errors.As(err, new(*fault.Unsupported)) && !d.DemandsExecution() {
				cli.For(cmd).Notef("this machine goes without: %v", err)
				return nil
			}
			return err
		},
	}
}

func newEnforceStrict() *cobra.Command {
	return &cobra.Command{
		Use:   "strict",
		Short: "make the service that this is started for a strict one",
		Long: `Strict marks the control group that it runs in: what executes in it from now on, and
all that it starts, executes only what is sealed. Units of strict apps run it before
they start (ExecStartPre=+).`,
		Example: "  ExecStartPre=+/usr/bin/sealant enforce strict",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := openDevice(cmd)
			if err != nil {
				return err
			}
			return d.StrictService(os.Getpid())
		},
	}
}

func newEnforceUnload() *cobra.Command {
	return &cobra.Command{
		Use:   "unload",
		Short: "take the guard out of the kernel",
		Long: `Unload takes the programs out of the kernel until the next load: nothing is
enforced, and strict apps that run are strict no more. The agent, while policy
wants enforcement, loads them again within a minute.`,
		Example: "  sealant enforce unload",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return fault.New(fault.Policy, "cannot take the guard out of the kernel: it needs root")
			}
			return enforce.Unload()
		},
	}
}

func newEnforceGenerate() *cobra.Command {
	return &cobra.Command{
		Use:    "generate DIR",
		Hidden: true,
		Short:  "write drop-ins for the services of strict apps; a generator of systemd's runs it",
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := openDevice(cmd)
			if err != nil {
				return err
			}
			return d.StrictUnits(args[0])
		},
	}
}

// openDevice opens the device in this process, whether the agent runs or not.
func openDevice(cmd *cobra.Command) (*device.Device, error) {
	root, err := cmd.Flags().GetString("root")
	if err != nil {
		return nil, err
	}
	return device.Open(root)
}
