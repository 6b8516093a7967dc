package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newPolicy() *cobra.Command {
	var effective bool
	cmd := &cobra.Command{
		Use:   "policy [--effective]",
		Short: "the policy in force, and which file decided",
		Long: `Policy prints what agent.toml and policy.d say. With --effective it prints every key,
its default included, the rule by which several files combine, and the file that won.`,
		Example: "  sealant policy --effective",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
	cmd.Flags().BoolVar(&effective, "effective", false, "print every key, defaults included")
	return cmd
}
