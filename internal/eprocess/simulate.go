package eprocess

import (
	"math"
	"math/rand/v2"
	"time"
)

// DeviceModel is a simulated device with one app, used once a day from the same
// hour on, first without an improvement and then with it. The app's crashes are
// harder than the test's assumption: they come in bursts, and bad days exist.
type DeviceModel struct {
	Rate         float64 // bursts of crashes per hour of use, without the improvement
	HoursPerDay  float64 // use per day, at most 24
	Rise         float64 // factor on Rate with the improvement; 1 is harmless
	Cluster      float64 // mean number of crashes in a burst, minutes apart; at least 1
	Dispersion   float64 // shape of the Gamma distribution (mean 1) that each day's rate is multiplied with; 0 for equal days
	BaselineDays int     // days before the improvement
	Days         int     // days with it
	EveryLaunch  bool    // with the improvement the app crashes at its launch, on the days it is used (6 of 7)
}

// DeviceOutcome counts devices, by the first day on which something flagged.
type DeviceOutcome struct {
	Devices     int
	Flagged     []int // by this package's rules; index is the day with the improvement, from 0
	Declustered int   // by an exact 5 % test repeated at every counted crash
	Naive       int   // by an exact 5 % test repeated at every crash
}

// By is the share of devices flagged in the first so many days.
func (o DeviceOutcome) By(days int) float64 {
	var n int
	for _, flagged := range o.Flagged[:min(days, len(o.Flagged))] {
		n += flagged
	}
	return float64(n) / float64(o.Devices)
}

// Run simulates so many devices, with a look at every crash.
func (m DeviceModel) Run(rng *rand.Rand, devices int) DeviceOutcome {
	out := DeviceOutcome{Devices: devices, Flagged: make([]int, m.Days)}
	for range devices {
		d := deviceRun{DeviceModel: m, rng: rng, flaggedOn: -1}
		for day := -m.BaselineDays; day < m.Days; day++ {
			d.live(day)
		}
		if d.flaggedOn >= 0 {
			out.Flagged[d.flaggedOn]++
		}
		if d.declustered {
			out.Declustered++
		}
		if d.naive {
			out.Naive++
		}
	}
	return out
}

// deviceRun is one device under way.
type deviceRun struct {
	DeviceModel
	rng                *rand.Rand
	quiet              [2]Quiet
	counted, raw       Counts
	flaggedOn          int
	declustered, naive bool
}

func (d *deviceRun) live(day int) {
	const dayLength, morning = 24 * time.Hour, 9 * time.Hour
	at := time.Duration(day+d.BaselineDays)*dayLength + morning
	end := at + time.Duration(d.HoursPerDay*float64(time.Hour))
	arm, rate := 0, d.Rate
	if day >= 0 {
		arm, rate = 1, d.Rate*d.Rise
	}
	if d.EveryLaunch && arm == 1 {
		if d.rng.IntN(7) != 0 {
			d.use(arm, at, at+Floor)
			d.crash(day, arm, at+Floor)
		}
		return
	}
	if d.Dispersion > 0 {
		rate *= gamma(d.rng, d.Dispersion) / d.Dispersion
	}
	for {
		gap := d.rng.ExpFloat64() / rate // hours; compared before it may overflow a Duration
		if gap >= (end - at).Hours() {
			break
		}
		at = d.use(arm, at, at+time.Duration(gap*float64(time.Hour)))
		d.crash(day, arm, at)
		for d.rng.Float64() < 1-1/d.Cluster {
			next := at + time.Duration(d.rng.ExpFloat64()*float64(3*time.Minute))
			if next >= end {
				break
			}
			at = d.use(arm, at, next)
			d.crash(day, arm, at)
		}
	}
	d.use(arm, at, end)
}

func (d *deviceRun) use(arm int, from, to time.Duration) time.Duration {
	counted, raw := d.quiet[arm].Exposure(from, to).Hours(), (to - from).Hours()
	if arm == 0 {
		d.counted.T0, d.raw.T0 = d.counted.T0+counted, d.raw.T0+raw
	} else {
		d.counted.T1, d.raw.T1 = d.counted.T1+counted, d.raw.T1+raw
	}
	return to
}

func (d *deviceRun) crash(day, arm int, at time.Duration) {
	counts := d.quiet[arm].Crash(at)
	if arm == 0 {
		d.raw.X0++
		if counts {
			d.counted.X0++
		}
		return
	}
	d.raw.X1++
	d.naive = d.naive || exactTest(d.raw)
	if !counts {
		return
	}
	d.counted.X1++
	d.declustered = d.declustered || exactTest(d.counted)
	if d.flaggedOn >= 0 {
		return
	}
	if verdict, _, err := d.counted.Judge(1, Threshold); err == nil && verdict == RecommendRemoval {
		d.flaggedOn = day
	}
}

// exactTest is what this package replaces: the exact conditional test of equal
// Poisson rates at 5 %, as if one looked only once.
func exactTest(c Counts) bool {
	if c.T0 <= 0 || c.T1 <= 0 {
		return false
	}
	n, p := c.X0+c.X1, c.T1/(c.T0+c.T1)
	term := math.Exp(lnChoose(n, c.X1) + float64(c.X1)*math.Log(p) + float64(c.X0)*math.Log1p(-p))
	var tail float64
	for k := c.X1; k <= n && tail < 0.05; k++ {
		tail += term
		term *= float64(n-k) / float64(k+1) * p / (1 - p)
	}
	return tail < 0.05
}

func lnChoose(n, k int64) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

// gamma draws from a Gamma distribution of that shape and scale 1 (Marsaglia
// and Tsang, 2000).
func gamma(rng *rand.Rand, shape float64) float64 {
	if shape < 1 {
		return gamma(rng, shape+1) * math.Pow(1-rng.Float64(), 1/shape)
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := rng.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-rng.Float64()) < 0.5*x*x+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}
