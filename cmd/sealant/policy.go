package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

func newPolicy() *cobra.Command {
	var effective bool
	var automatic string
	cmd := &cobra.Command{
		Use:   "policy [--effective]",
		Short: "the policy in force, and which file decided",
		Long: `Policy prints what agent.toml and policy.d say. With --effective it prints every key,
its default included, the rule by which several files combine, and the file that won.

--automatic switches "Automatically Install", which adds security fixes between
software updates. If off, this device gets them with a later software update, or
when somebody installs them. Policy may have decided it (install.automatic).`,
		Example: "  sealant policy --effective\n  sudo sealant policy --automatic off",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("automatic") {
				return switchAutomatic(cmd, automatic)
			}
			r, err := ask[device.Rules](cmd, "policy", none{})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.policy/1", r)
			}
			shown := 0
			for _, k := range r.Settings {
				if !effective && k.File == "" {
					continue
				}
				shown++
				file := k.File
				if file == "" {
					file = "(default)"
				}
				owner := ""
				if k.Owner != "" {
					owner = "  set by " + k.Owner
				}
				printf(s, "%-22s %-12s %-10s %s%s\n", k.Key, k.Value, k.Rule, file, owner)
			}
			if shown == 0 {
				s.Notef("Nothing is set: the defaults apply (--effective lists them).\n")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&automatic, "automatic", "", "switch automatic installation: on or off")
	cmd.Flags().BoolVar(&effective, "effective", false, "print every key, defaults included")
	return cmd
}

func switchAutomatic(cmd *cobra.Command, word string) error {
	if word != "on" && word != "off" {
		return fault.New(fault.Usage, "cannot switch automatic installation: %q is not on or off", word)
	}
	r, err := ask[device.AutomaticOptions](cmd, "automatic", device.AutomaticOptions{On: word == "on"})
	if err != nil {
		return err
	}
	s := cli.For(cmd)
	if s.JSON {
		return s.Document("sealant.automatic/1", r)
	}
	printf(s, "%s Automatically Install is %s.\n", s.Good(), word)
	return nil
}
