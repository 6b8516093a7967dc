package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/eprocess"
	"github.com/sealant-os/sealant/internal/fault"
)

// scenario is one simulated case and what came of it.
type scenario struct {
	Case   string  `json:"case"`
	Test   string  `json:"test"`
	Share  float64 `json:"share"`
	Of     int     `json:"of"`
	What   string  `json:"what"`   // devices or rollouts
	Bound  string  `json:"bound"`  // what the design promises, "" for a test that it replaces
	Within bool    `json:"within"` // the promise is kept
}

func newEvidenceSimulate() *cobra.Command {
	var seed uint64
	var devices, rollouts int
	cmd := &cobra.Command{
		Use: "simulate", Short: "how often the tests are wrong, by simulation", Args: cobra.NoArgs,
		Long: `Simulate runs devices and fleets whose crashes are harder than the tests assume:
they come in bursts of three on average, there are bad days, rates drift, and some
reporters lie. It prints how often a harmless improvement is blamed and a harmful
one is found, by Sealant's tests and by the ones they replace. The same seed gives
the same numbers.`,
		Example: "  sealsrv evidence simulate\n  sealsrv evidence simulate --seed 7 --devices 5000 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if devices < 10 || devices > 1_000_000 || rollouts < 1 || rollouts > 10_000 {
				return fault.New(fault.Usage, "cannot simulate: --devices is 10 to 1000000, --rollouts 1 to 10000")
			}
			screen := cli.For(cmd)
			all := simulateDevices(rand.New(rand.NewPCG(seed, 1)), devices)
			all = append(all, simulateFleets(rand.New(rand.NewPCG(seed, 2)), rollouts)...)
			return showScenarios(screen, seed, all)
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&seed, "seed", 2026, "seed of the random numbers")
	f.IntVar(&devices, "devices", 2000, "devices in each case")
	f.IntVar(&rollouts, "rollouts", 150, "rollouts in each case")
	return cmd
}

// atMost is a scenario that keeps a promise when its share is low. Three standard
// errors are left to chance, so that a small simulation raises no false alarm.
func atMost(name, test string, count, of int, what string, limit float64) scenario {
	s := scenario{Case: name, Test: test, Share: float64(count) / float64(of), Of: of, What: what}
	s.Bound, s.Within = fmt.Sprintf("at most %g %%", 100*limit), s.Share <= limit+chance(limit, of)
	return s
}

// atLeast is a scenario that keeps a promise when its share is high.
func atLeast(name, test string, share float64, of int, what string, limit float64) scenario {
	return scenario{
		Case: name, Test: test, Share: share, Of: of, What: what,
		Bound: fmt.Sprintf("at least %g %%", 100*limit), Within: share >= limit-chance(limit, of),
	}
}

func chance(limit float64, of int) float64 { return 3 * math.Sqrt(limit*(1-limit)/float64(of)) }

// replaced is a test that makes no promise.
func replaced(name, test string, count, of int, what string) scenario {
	return scenario{Case: name, Test: test, Share: float64(count) / float64(of), Of: of, What: what, Within: true}
}

const ours = "sealant"

// simulateDevices runs one app on many devices: a year without an effect, for
// apps of many kinds, and a month with one.
func simulateDevices(rng *rand.Rand, n int) []scenario {
	const what = "devices"
	var all []scenario
	for _, m := range []eprocess.DeviceModel{
		{Rate: 0.003, HoursPerDay: 2, Dispersion: 0.5},
		{Rate: 0.02, HoursPerDay: 2, Dispersion: 0.5},
		{Rate: 0.05, HoursPerDay: 4, Dispersion: 1},
		{Rate: 0.2, HoursPerDay: 8, Dispersion: 0.5},
	} {
		m.Rise, m.Cluster, m.BaselineDays, m.Days = 1, 3, 30, 365
		out := m.Run(rng, n)
		name := fmt.Sprintf("harmless, a year, %.3g crashes/h, %g h/day", m.Rate*m.Cluster, m.HoursPerDay)
		all = append(all,
			replaced(name, "exact test at every crash", out.Naive, n, what),
			replaced(name, "the same, bursts counted once", out.Declustered, n, what),
			atMost(name, ours, int(out.By(m.Days)*float64(n)+0.5), n, what, 0.03))
	}
	m := eprocess.DeviceModel{Rate: 0.01, HoursPerDay: 2, Rise: 20, Cluster: 3, Dispersion: 4, BaselineDays: 30, Days: 30}
	out := m.Run(rng, n)
	all = append(all,
		atLeast("20-fold rise, 0.01 bursts/h, 2 h/day, 14 days", ours, out.By(14), n, what, 0.45),
		atLeast("20-fold rise, 0.01 bursts/h, 2 h/day, 30 days", ours, out.By(30), n, what, 0.65))
	m.EveryLaunch = true
	out = m.Run(rng, n)
	all = append(all,
		atLeast("a crash at every launch, 2 days", ours, out.By(2), n, what, 0.70),
		atLeast("a crash at every launch, 30 days", ours, out.By(30), n, what, 0.99))
	return all
}

// simulateFleets runs rollouts to 20 000 reporters with 200 watched apps.
func simulateFleets(rng *rand.Rand, n int) []scenario {
	const what = "rollouts"
	harmless := eprocess.FleetModel{Apps: 200, Reporters: 20_000, Hazard: 0.0005, Drift: 1.08, Harm: 1}
	out := harmless.Run(rng, n)
	all := []scenario{
		replaced("harmless, 200 apps, 8 %/day drift: an app listed", "pooled test, Bonferroni, daily", out.NaiveListed, n, what),
		atMost("harmless, 200 apps, 8 %/day drift: an app proposed", ours, out.HarmlessListed, n, what, 0.05),
		atMost("harmless, 200 apps, 8 %/day drift: paused", ours, out.Paused, n, what, 0.10),
	}
	n = max(1, n/3) // what follows is clear sooner
	harmful := harmless
	harmful.Hazard, harmful.Harm = 0.001, 3
	out = harmful.Run(rng, n)
	all = append(all,
		atLeast("one app 3-fold worse: proposed", ours, float64(out.HarmfulListed)/float64(n), n, what, 0.95),
		atLeast("one app 3-fold worse: paused", ours, float64(out.Paused)/float64(n), n, what, 0.95))
	for _, liars := range []int{3, 30} {
		poisoned := harmless
		poisoned.Liars = liars
		out = poisoned.Run(rng, n)
		name := fmt.Sprintf("harmless, %d of 20 000 lie about one app: proposed to a person", liars)
		if liars < 10 {
			all = append(all, atMost(name, ours, out.HarmlessListed, n, what, 0.05))
		} else {
			// No test on forged reports can tell; so a person signs, and the device judges by itself.
			all = append(all, replaced(name, ours, out.HarmlessListed, n, what))
		}
	}
	return all
}

func showScenarios(screen *cli.Screen, seed uint64, all []scenario) error {
	kept := true
	for _, s := range all {
		kept = kept && s.Within
	}
	if screen.JSON {
		if err := screen.Document("sealant.evidence-simulation/1", map[string]any{"seed": seed, "scenarios": all, "promises_kept": kept}); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(screen.Out, 0, 8, 2, ' ', 0)
		last := ""
		for _, s := range all {
			name := s.Case
			if name == last {
				name = strings.Repeat(" ", 4)
			}
			last = s.Case
			mark := " "
			if s.Bound != "" {
				mark = screen.Good()
				if !s.Within {
					mark = screen.Bad()
				}
			}
			fmt.Fprintf(w, "%s\t%s\t%5.1f %%\t%s %s\n", name, s.Test, 100*s.Share, mark, s.Bound)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if !kept {
		return fault.New(fault.Failed, "the simulation does not keep what the design promises")
	}
	return nil
}
