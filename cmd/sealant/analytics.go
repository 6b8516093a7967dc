package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newAnalytics() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "analytics",
		Short: "what this device may tell the vendor, and what exactly",
		Long: `Analytics shows two switches, both off until somebody turns them on: for this
device, and for paired devices, which report through this one. Preview shows the exact
bytes that would be sent. Reports name no device: no id, no time of day, no path. The
judgement whether an improvement makes apps crash (sealant evidence) works without.`,
		Example: "  sealant analytics\n  sealant analytics preview\n  sudo sealant analytics on\n  sudo sealant analytics off --paired",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := ask[device.Analytics](cmd, "analytics", none{})
			if err != nil {
				return err
			}
			return showSwitches(cli.For(cmd), a)
		},
	}
	cmd.AddCommand(newPreview(), newShare("on", true), newShare("off", false))
	return cmd
}

func showSwitches(s *cli.Screen, a device.Analytics) error {
	if s.JSON {
		return s.Document("sealant.analytics/1", a)
	}
	for _, x := range []struct {
		name string
		device.Switch
	}{{"Share Device Analytics", a.Device}, {"Share Paired Device Analytics", a.Paired}} {
		state := "off"
		switch {
		case a.Policy == "never" && a.Owner != "":
			state = "off (set by " + a.Owner + ")"
		case a.Policy == "never":
			state = "off (set by policy)"
		case x.On:
			state = "on, days from " + x.Since + " on"
		}
		printf(s, "%-30s %s\n", x.name, state)
	}
	printf(s, "%-30s %d\n", "Reports that wait to be sent", len(a.Waiting))
	return nil
}

func newPreview() *cobra.Command {
	return &cobra.Command{
		Use:   "preview",
		Short: "the exact bytes that would be sent",
		Long: `Preview prints each report exactly as it would be sent, one on a line: first what
waits to be sent, then what would be made of today until now, whether sharing is on or
off. The name in a report is random and new for each one, so that one that is sent
twice is counted once.`,
		Example: "  sealant analytics preview",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := ask[device.Analytics](cmd, "analytics", none{})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.analytics/1", a)
			}
			if !a.Device.On || a.Policy == "never" {
				s.Notef("Sharing is off: nothing is sent. If it were on, today would be told like this:\n")
			}
			for _, body := range append(a.Waiting, a.Today...) {
				s.Printf("%s\n", body)
			}
			if len(a.Waiting)+len(a.Today) == 0 {
				s.Notef("Nothing: no watched app was used today.\n")
			}
			return nil
		},
	}
}

func newShare(name string, on bool) *cobra.Command {
	o := device.ShareOptions{On: on}
	short, long := "share, from the next day on", `On turns a switch on. It counts from the next day (UTC) on: nothing from before is
ever told. Each report leaves at a random moment within 24 hours.`
	if !on {
		short, long = "stop sharing, and throw away what waits", `Off turns a switch off. What waits to be sent is thrown away at once.`
	}
	cmd := &cobra.Command{
		Use: name + " [--paired]", Short: short, Long: long, Args: cobra.NoArgs,
		Example: "  sudo sealant analytics " + name + "\n  sudo sealant analytics " + name + " --paired",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := ask[device.Analytics](cmd, "share", o)
			if err != nil {
				return err
			}
			return showSwitches(cli.For(cmd), a)
		},
	}
	cmd.Flags().BoolVar(&o.Paired, "paired", false, "the switch of devices that report through this one")
	return cmd
}
