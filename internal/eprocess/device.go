package eprocess

import "math"

// Counts is what one device saw of one app: counted crashes and hours of use
// without the improvement (0) and with it (1).
type Counts struct {
	X0 int64   // crashes without
	T0 float64 // hours without
	X1 int64   // crashes with
	T1 float64 // hours with
}

// The device's test looks for rises of these factors, all equally likely, under
// a Gamma(priorShape, priorHours) distribution of the app's unknown crash rate.
var deviceRises = [...]float64{2, 4, 8, 16, 32, 64, 128}

const (
	priorShape = 1     // a; the formula below is simplified for 1
	priorHours = 100.0 // b
)

// E is the evidence that the app crashes more often with the improvement
// (universal inference, split-free):
//
//	E = N / D,  n = x0 + x1
//	N = mean over r of  r^x1 · b^a · Γ(a+n) / (Γ(a) · (b + t0 + r·t1)^(a+n))
//	D = sup of the Poisson likelihood over rate1 ≤ rate0
//	  = (n/(t0+t1))^n · e^−n                  if x1/t1 ≥ x0/t0
//	  = (x0/t0)^x0 · (x1/t1)^x1 · e^−n        otherwise, with 0⁰ = 1
//
// Each mean's term is divided by D before anything is summed, so that the large
// parts cancel on paper and not in floating point. With B = b + t0 + r·t1 and
// s(n) = ln n! − n·ln n + n, and a = 1:
//
//	ln(term/D) = x1·ln r + ln(b/B) + s(n) + n·ln((t0+t1)/B)                      if x1/t1 ≥ x0/t0
//	           = x1·ln r + ln(b/B) + s(n) + x0·ln(n·t0/(x0·B)) + x1·ln(n·t1/(x1·B))  otherwise
func (c Counts) E() (E, error) {
	if err := c.check(); err != nil {
		return E{}, err
	}
	var (
		x0, x1 = float64(c.X0), float64(c.X1)
		n      = x0 + x1
		worse  = x1*c.T0 >= x0*c.T1
		logs   [len(deviceRises)]float64
	)
	for i, r := range deviceRises {
		base := priorHours + c.T0 + r*c.T1
		log := x1*math.Log(r) + priorShape*math.Log(priorHours/base) + stirling(n)
		if worse {
			log += n * math.Log((c.T0+c.T1)/base)
		} else {
			log += xlog(x0, n*c.T0/base) + xlog(x1, n*c.T1/base)
		}
		logs[i] = log
	}
	return mean(logs[:]), nil
}

// Enough reports whether there is enough to judge at all.
func (c Counts) Enough() bool { return c.T0 >= MinHours && c.X1 >= MinCrashes }

func (c Counts) check() error {
	for _, err := range []error{
		checkCount("x0", c.X0), checkHours("t0", c.T0),
		checkCount("x1", c.X1), checkHours("t1", c.T1),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// Verdict is a stable word for what a device concludes from Counts.
type Verdict string

// The verdicts of the numbers alone. The device adds its own circumstances (see
// device/evidence).
const (
	RecommendRemoval Verdict = "recommend-removal" // E reaches the threshold
	NotSignificant   Verdict = "not-significant"   // enough use, but no evidence
	NotEnoughData    Verdict = "not-enough-data"   // below a minimum: no judgement
)

// Judge gives the verdict when `listed` apps on the device are on the vendor's
// list (at least 1) and its entry asks for at least minimum evidence (Threshold
// if it is lower).
func (c Counts) Judge(listed int, minimum float64) (Verdict, E, error) {
	e, err := c.E()
	switch {
	case err != nil:
		return "", E{}, err
	case !c.Enough():
		return NotEnoughData, e, nil
	case e.AtLeast(Needed(listed, minimum)):
		return RecommendRemoval, e, nil
	}
	return NotSignificant, e, nil
}

// Needed is the E that a device asks for with `listed` apps on the vendor's
// list and a minimum for this one.
func Needed(listed int, minimum float64) float64 {
	return math.Max(Threshold*float64(max(listed, 1)), minimum)
}

// xlog is x·ln(y/x) with 0·ln(y/0) = 0.
func xlog(x, y float64) float64 {
	if x == 0 {
		return 0
	}
	return x * math.Log(y/x)
}

// stirling is ln n! − n·ln n + n, which is small (½·ln 2πn + 1/12n − …) where its
// parts are huge. The first omitted term is below 5e-13 from n = 20 on.
func stirling(n float64) float64 {
	if n == 0 {
		return 0
	}
	if n < 20 {
		lg, _ := math.Lgamma(n + 1)
		return lg - n*math.Log(n) + n
	}
	n2 := n * n
	return 0.5*math.Log(2*math.Pi*n) + (1/12.0-(1/360.0-1/(1260*n2))/n2)/n
}
