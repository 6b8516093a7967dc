package eprocess

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Harmless improvements, a year of looks at every crash: at most 3 % of devices
// may flag, on the worst of many kinds of apps.
func TestFalseAlarms(t *testing.T) {
	for _, m := range []DeviceModel{
		{Rate: 0.003, HoursPerDay: 2, Cluster: 3, Dispersion: 0.5},
		{Rate: 0.02, HoursPerDay: 2, Cluster: 3, Dispersion: 0.5},
		{Rate: 0.02, HoursPerDay: 2, Cluster: 3, Dispersion: 4},
		{Rate: 0.05, HoursPerDay: 8, Cluster: 3, Dispersion: 1},
		{Rate: 0.2, HoursPerDay: 8, Cluster: 3, Dispersion: 0.5},
		{Rate: 0.05, HoursPerDay: 2, Cluster: 1},
	} {
		m.Rise, m.BaselineDays, m.Days = 1, 30, 365
		t.Run(fmt.Sprintf("%+v", m), func(t *testing.T) {
			out := m.Run(rand.New(rand.NewPCG(20261123, 1)), 600)
			if got := out.By(m.Days); got > 0.03 {
				t.Errorf("%.1f %% of devices flag a harmless improvement", 100*got)
			}
		})
	}
}

// The tests that this one replaces do raise false alarms in the same simulation;
// otherwise the simulation would prove nothing.
func TestSimulationIsHard(t *testing.T) {
	m := DeviceModel{Rate: 0.2, HoursPerDay: 8, Rise: 1, Cluster: 3, Dispersion: 0.5, BaselineDays: 30, Days: 365}
	out := m.Run(rand.New(rand.NewPCG(20261123, 2)), 300)
	if naive := float64(out.Naive) / 300; naive < 0.6 {
		t.Errorf("the repeated exact test flags only %.0f %%", 100*naive)
	}
	if declustered := float64(out.Declustered) / 300; declustered < 0.25 {
		t.Errorf("the repeated exact test with declustering flags only %.0f %%", 100*declustered)
	}
}

func TestPower(t *testing.T) {
	m := DeviceModel{Rate: 0.01, HoursPerDay: 2, Rise: 20, Cluster: 3, Dispersion: 4, BaselineDays: 30, Days: 30}
	out := m.Run(rand.New(rand.NewPCG(20261123, 3)), 3000)
	if got := out.By(30); got < 0.65 {
		t.Errorf("a 20-fold rise is seen on %.1f %% of devices in 30 days", 100*got)
	}
	if got := out.By(14); got < 0.45 {
		t.Errorf("a 20-fold rise is seen on %.1f %% of devices in 14 days", 100*got)
	}
	m.EveryLaunch = true
	out = m.Run(rand.New(rand.NewPCG(20261123, 4)), 1000)
	if got := out.By(30); got != 1 {
		t.Errorf("a crash at every launch is seen on %.1f %% of devices", 100*got)
	}
	if got := out.By(2); got < 0.7 {
		t.Errorf("a crash at every launch is seen on %.1f %% of devices by the second day", 100*got)
	}
}

func TestFleetSimulation(t *testing.T) {
	harmless := FleetModel{Apps: 200, Reporters: 20_000, Hazard: 0.0005, Drift: 1.08, Harm: 1}
	out := harmless.Run(rand.New(rand.NewPCG(20261123, 5)), 25)
	if out.HarmlessListed != 0 {
		t.Errorf("a harmless app proposed in %d of 25 rollouts", out.HarmlessListed)
	}
	if out.NaiveListed < 20 {
		t.Errorf("the naive test listed in only %d of 25 rollouts: the simulation is too easy", out.NaiveListed)
	}
	harmful := harmless
	harmful.Hazard, harmful.Harm = 0.001, 3
	out = harmful.Run(rand.New(rand.NewPCG(20261123, 6)), 10)
	if out.HarmfulListed < 9 || out.Paused < 9 {
		t.Errorf("a 3-fold rise was proposed in %d and paused %d of 10 rollouts", out.HarmfulListed, out.Paused)
	}
	few := harmless
	few.Liars = 3
	if out = few.Run(rand.New(rand.NewPCG(20261123, 7)), 10); out.HarmlessListed != 0 {
		t.Errorf("three liars among 20 000 put an app on the proposal in %d of 10 rollouts", out.HarmlessListed)
	}
}

func TestBinomial(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		n int64
		p float64
	}{{1000, 0.003}, {1000, 0.5}, {1000, 0.97}, {100_000, 0.02}, {10, 0}, {10, 1}, {0, 0.5}} {
		const draws = 4000
		var sum float64
		for range draws {
			k := binomial(rng, c.n, c.p)
			if k < 0 || k > c.n {
				t.Fatalf("drew %d of %d", k, c.n)
			}
			sum += float64(k)
		}
		if got, want := sum/draws, float64(c.n)*c.p; got < want*0.97 || got > want*1.03 {
			t.Errorf("mean of binomial(%d, %v) is %v", c.n, c.p, got)
		}
	}
}
