package eprocess

import (
	"math"
	"math/rand/v2"
)

// FleetModel is a simulated rollout to a fleet, with many apps that the
// improvement does not harm and possibly one that it does.
type FleetModel struct {
	Apps      int     // watched apps
	Reporters int     // devices that opted in
	Hazard    float64 // chance of a first crash of one app on one device on the first day
	Drift     float64 // factor on every hazard per day, the same in both arms: 1.08 is 8 % a day
	Harm      float64 // factor on the first app's hazard where the improvement is offered; 1 is harmless
	Liars     int     // offered devices that invent a first crash of the last app, one each, on the second day
}

// FleetOutcome counts rollouts.
type FleetOutcome struct {
	Rollouts       int
	HarmfulListed  int // the harmful app was proposed
	HarmlessListed int // any harmless app was proposed
	Paused         int // the rollout paused by itself
	NaiveListed    int // a pooled test, Bonferroni-corrected, listed any harmless app at some daily look
}

// Phases of a rollout: the share offered on each day, without the 2 % hold-back
// that ends on day 14.
var phases = []float64{
	0.01, 0.01, 0.05, 0.05, 0.20, 0.20, 0.50, 0.50, 0.50,
	0.98, 0.98, 0.98, 0.98, 0.98,
}

// Run simulates so many rollouts, with a look on every day.
func (m FleetModel) Run(rng *rand.Rand, rollouts int) FleetOutcome {
	out := FleetOutcome{Rollouts: rollouts}
	for range rollouts {
		var harmful, harmless, naive, paused bool
		histories, running := make([][]Day, m.Apps), make([]logrank, m.Apps)
		for app := range histories {
			histories[app] = m.history(rng, app)
		}
		for day := range phases {
			es := make([]E, m.Apps)
			for app, history := range histories {
				days := history[:day+1]
				if err := running[app].add(days[day]); err != nil {
					panic(err) // the simulator made an impossible history
				}
				e := running[app].e()
				es[app] = e
				isHarmful := app == 0 && m.Harm != 1
				listed := Proposes(e, days, m.Apps)
				harmful = harmful || listed && isHarmful
				harmless = harmless || listed && !isHarmful
				naive = naive || !isHarmful && pooledTest(days, m.Apps)
			}
			paused = paused || Pauses(es)
		}
		for flag, count := range map[*bool]*int{
			&harmful: &out.HarmfulListed, &harmless: &out.HarmlessListed,
			&naive: &out.NaiveListed, &paused: &out.Paused,
		} {
			if *flag {
				*count++
			}
		}
	}
	return out
}

// history is one app's days in one rollout.
func (m FleetModel) history(rng *rand.Rand, app int) []Day {
	var (
		days   = make([]Day, len(phases))
		hazard = m.Hazard
		others = int64(m.Reporters) // at risk and not yet offered
		risk   int64                // at risk and offered
		share  float64
	)
	for i, phase := range phases {
		// Of those still at risk the hash moves the same share as of all.
		moved := binomial(rng, others, (phase-share)/(1-share))
		others, risk, share = others-moved, risk+moved, phase
		offered := hazard
		if app == 0 {
			offered *= m.Harm
		}
		d := Day{Stratum: "all", R1: risk, R0: others}
		d.F1, d.F0 = binomial(rng, risk, offered), binomial(rng, others, hazard)
		if i == 1 && app == m.Apps-1 {
			d.F1 = min(risk, d.F1+int64(m.Liars))
		}
		risk, others = risk-d.F1, others-d.F0
		hazard *= m.Drift
		days[i] = d
	}
	return days
}

// pooledTest is what this package replaces: rates per device-day, all days in
// one pot, a one-sided normal test at 5 % over the number of apps.
func pooledTest(days []Day, apps int) bool {
	var f1, f0, r1, r0 float64
	for _, d := range days {
		f1, f0, r1, r0 = f1+float64(d.F1), f0+float64(d.F0), r1+float64(d.R1), r0+float64(d.R0)
	}
	if f1+f0 < 10 || r1 == 0 || r0 == 0 {
		return false
	}
	p := r1 / (r1 + r0)
	z := (f1 - (f1+f0)*p) / math.Sqrt((f1+f0)*p*(1-p))
	return 0.5*math.Erfc(z/math.Sqrt2) < 0.05/float64(apps)
}

// binomial draws how many of n happen with chance p: by counting the gaps
// between them, which costs as many steps as there are, and where there are
// thousands by the normal distribution that it then is.
func binomial(rng *rand.Rand, n int64, p float64) int64 {
	switch {
	case n <= 0 || p <= 0:
		return 0
	case p >= 1:
		return n
	case p > 0.5:
		return n - binomial(rng, n, 1-p)
	}
	mean := float64(n) * p
	if mean > 500 {
		return min(n, int64(max(0, math.Round(mean+rng.NormFloat64()*math.Sqrt(mean*(1-p))))))
	}
	scale := 1 / math.Log1p(-p)
	for hits, at := int64(0), 0.0; ; hits++ {
		at += math.Floor(math.Log(1-rng.Float64())*scale) + 1
		if at > float64(n) {
			return hits
		}
	}
}
