package main

import (
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "what this device has, and what of it is active",
		Long: `Status says which improvement this device has and where it is active. "Fixed now"
is printed only for content that is proven active in a process: installed is not
fixed. It changes nothing and needs no network.`,
		Example: "  sealant status\n  sealant status --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := ask[device.Status](cmd, "status", none{})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.status/1", st)
			}
			printStatus(s, st)
			return nil
		},
	}
}

func printStatus(s *cli.Screen, st device.Status) {
	head := sprintf("%s · %s %s · ", st.Name, st.Product, device.VersionText(st.OSVersion))
	if st.State == device.StateForeign {
		printf(s, "%snot enrolled\n", head)
		printf(s, "This device gets no improvements: sealant enroll --token TOKEN\n")
		return
	}
	printf(s, "%sdevice %s            %s\n", head, st.Device, feed(s, st))
	printf(s, "%s\n", improvement(s, st))
	if st.Note != "" {
		printf(s, "%s %s\n", s.Warn(), st.Note)
	}
	printTable(s, st)
	printFixes(s, "Fixed now             ", st.Fixed)
	printFixes(s, "Installed, not active ", st.Waiting)
	printf(s, "Enforcement %s  Recall %s  Advice %s\n", st.Enforcement+" ("+strings.TrimSuffix(strings.TrimPrefix(st.Enforced, "kernel ("), ")")+")", st.Recall, adviceText(st.Advice))
	for _, name := range st.Damaged {
		printf(s, "%s %s is damaged on the disk: the kernel refused to read a part of it. Repair it: sealant install\n", s.Bad(), name)
	}
	for _, h := range st.Held {
		end := "until something newer, or sealant reapply"
		if h.Reason == "recalled" {
			end = "until something newer"
		}
		printf(s, "Held: %s %s (%s), %s\n", h.Release, h.Reason, h.Actor, end)
	}
}

// adviceText points to the question that waits for the person.
func adviceText(app string) string {
	switch app {
	case "":
		return "unknown (ask as root)"
	case "none":
		return "none"
	}
	return app + ": sealant evidence"
}

func feed(s *cli.Screen, st device.Status) string {
	switch st.FeedState {
	case "fresh":
		return sprintf("feed %s old %s", device.AgeText(st.FeedAge), s.Good())
	case "stale":
		return sprintf("feed %s old %s stale", device.AgeText(st.FeedAge), s.Warn())
	}
	return sprintf("feed never heard %s", s.Warn())
}

func improvement(s *cli.Screen, st device.Status) string {
	name := st.Improvement + " " + st.Release
	switch st.State {
	case device.StateNone:
		return sprintf("No improvement installed  %s", s.Dash())
	case device.StateStaged:
		return sprintf("Improvement %s  %s staged; active in no app; restart to finish", name, s.Empty())
	case device.StatePartly:
		active, all := count(st)
		return sprintf("Improvement %s  %s active in %d of %d apps; restart to finish", name, s.Half(), active, all)
	case device.StateActive:
		return sprintf("Improvement %s  %s active everywhere", name, s.Full())
	case device.StateRemoving:
		return sprintf("Improvement %s  %s removal staged: %s after restart", name, s.Half(), st.Next)
	case device.StateReverting:
		return sprintf("Improvement %s  %s taken back by the vendor: %s after restart", name, s.Half(), st.Next)
	case device.StateRefused:
		return sprintf("Improvement %s  %s not used: the last boot refused it; sealant install repairs it", name, s.Bad())
	case device.StateInert:
		return sprintf("Improvement %s  %s inert: not used", strings.TrimSpace(name), s.Bad())
	}
	return name
}

// count says in how many of the running apps the changed content is active.
func count(st device.Status) (active, all int) {
	good := map[string]bool{}
	for _, c := range st.Cryptexes {
		if !c.Changed {
			continue
		}
		for _, a := range c.Apps {
			if old, seen := good[a.App]; !seen || old {
				good[a.App] = a.Active
			}
		}
	}
	for _, ok := range good {
		if ok {
			active++
		}
	}
	return active, len(good)
}

func printTable(s *cli.Screen, st device.Status) {
	if len(st.Cryptexes) == 0 {
		return
	}
	printf(s, "%-8s %-8s %-5s %-12s %-12s %s\n", "CRYPTEX", "BASE", "LEVEL", "SEAL", "TICKET", "ACTIVE IN")
	for _, c := range st.Cryptexes {
		level := "base"
		if c.Level > 0 {
			level = sprintf("+%d", c.Level)
		}
		mark := s.Good()
		if !c.Verified {
			mark = s.Bad()
		}
		seal := s.Short(c.Seal) + " " + mark
		printf(s, "%-8s %-8s %-5s %s%s %-12s %s\n", c.Name, c.Base, level, seal, pad(12, s.Short(c.Seal)+" ✓"), c.Ticket, activeIn(s, c))
	}
}

// pad is what a cell still needs; colours and glyphs don't count by bytes.
func pad(width int, shown string) string {
	if n := width - len([]rune(shown)); n > 0 {
		return strings.Repeat(" ", n)
	}
	return ""
}

func activeIn(s *cli.Screen, c device.CryptexStatus) string {
	if !c.Changed {
		if c.Level == 0 {
			return s.Dash()
		}
		return sprintf("everywhere %s", s.Full())
	}
	var parts []string
	for _, a := range c.Apps {
		if a.Active {
			parts = append(parts, a.App+" "+s.Full())
		} else {
			parts = append(parts, a.App+" "+s.Empty()+" relaunch")
		}
	}
	if len(parts) == 0 {
		return sprintf("%d of %d processes %s restart", c.Active, c.Users, s.Empty())
	}
	return strings.Join(parts, "  ")
}

// printFixes groups flaws by where they are: "CVE-1 in browser · CVE-2 everywhere".
func printFixes(s *cli.Screen, title string, fixes []device.Fix) {
	if len(fixes) == 0 {
		return
	}
	in := map[string][]string{}
	for _, f := range fixes {
		in[f.In] = append(in[f.In], f.CVE)
	}
	var places []string
	for p := range in {
		places = append(places, p)
	}
	sort.Slice(places, func(i, j int) bool {
		if (places[i] == "everywhere") != (places[j] == "everywhere") {
			return places[j] == "everywhere"
		}
		return places[i] < places[j]
	})
	var parts []string
	for _, p := range places {
		where := "in " + p
		if p == "everywhere" {
			where = p
		}
		parts = append(parts, strings.Join(in[p], ", ")+" "+where)
	}
	printf(s, "%s %s\n", title, strings.Join(parts, " · "))
}
