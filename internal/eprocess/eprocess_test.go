package eprocess

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
)

// vectors reads the lines "input expect: output" of a file of check values.
func vectors(t *testing.T, name string) [][2][]string {
	t.Helper()
	text, err := os.ReadFile("../../spec/vectors/evidence/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var lines [][2][]string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		in, out, ok := strings.Cut(line, " expect: ")
		if !ok {
			t.Fatalf("no expect: in %q", line)
		}
		lines = append(lines, [2][]string{strings.Fields(in), strings.Fields(out)})
	}
	if len(lines) == 0 {
		t.Fatal("no vectors")
	}
	return lines
}

func number(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// near holds ln E to six digits after the point, or to nine significant digits
// where that is finer.
func near(got, want float64) bool {
	return math.Abs(got-want) <= max(2e-7, 1e-14*math.Abs(want))
}

func TestDeviceVectors(t *testing.T) {
	for _, v := range vectors(t, "device.txt") {
		t.Run(strings.Join(v[0], ","), func(t *testing.T) {
			c := Counts{
				X0: int64(number(t, v[0][0])), T0: number(t, v[0][1]),
				X1: int64(number(t, v[0][2])), T1: number(t, v[0][3]),
			}
			verdict, e, err := c.Judge(1, Threshold)
			if v[1][0] == "refused" {
				if !errors.Is(err, ErrInput) {
					t.Fatalf("accepted with E = %v, error %v", e.Value(), err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := number(t, v[1][0]); !near(e.Log(), want) {
				t.Errorf("ln E = %.12f, want %.12f", e.Log(), want)
			}
			if string(verdict) != v[1][1] {
				t.Errorf("verdict %s, want %s", verdict, v[1][1])
			}
			if math.IsInf(e.Value(), 0) || math.IsNaN(e.Value()) || e.Value() < 0 {
				t.Errorf("E = %v", e.Value())
			}
		})
	}
}

func TestFleetVectors(t *testing.T) {
	for _, v := range vectors(t, "fleet.txt") {
		t.Run(v[0][0], func(t *testing.T) {
			var days []Day
			for _, day := range v[0][1:] {
				var d Day
				if _, err := fmt.Sscanf(day, "%d,%d,%d,%d", &d.F1, &d.F0, &d.R1, &d.R0); err != nil {
					t.Fatal(err)
				}
				days = append(days, d)
			}
			e, err := Logrank(days)
			if v[1][0] == "refused" {
				if !errors.Is(err, ErrInput) {
					t.Fatalf("accepted with E = %v, error %v", e.Value(), err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := number(t, v[1][0]); !near(e.Log(), want) {
				t.Errorf("ln E = %.12f, want %.12f", e.Log(), want)
			}
		})
	}
}

// The values that evidence.md and its readers quote.
func TestQuotedValues(t *testing.T) {
	for _, c := range []struct {
		Counts
		want string
	}{
		{Counts{0, 60, 2, 5}, "29.069842"},
		{Counts{5, 60, 6, 5}, "20.752744"},
		{Counts{0, 60, 0, 5}, "0.386613"},
	} {
		e, err := c.E()
		if got := fmt.Sprintf("%.6f", e.Value()); err != nil || got != c.want {
			t.Errorf("E(%v) = %s, want %s; error %v", c.Counts, got, c.want, err)
		}
	}
	days := []Day{{F1: 3, F0: 10, R1: 100, R0: 9900}, {F1: 5, F0: 12, R1: 500, R0: 9500}}
	for n, want := range map[int]string{1: "181.121037", 2: "14558.196072"} {
		e, err := Logrank(days[:n])
		if got := fmt.Sprintf("%.6f", e.Value()); err != nil || got != want {
			t.Errorf("%d days: %s, want %s; error %v", n, got, want, err)
		}
	}
}

// Both forms of the supremum must meet where the rates are equal, or a device
// would see a jump there.
func TestContinuousAtEqualRates(t *testing.T) {
	for _, n := range []int64{1, 7, 1000, 1_000_000} {
		below, err := Counts{n, 100, n, 100 * (1 + 1e-12)}.E()
		if err != nil {
			t.Fatal(err)
		}
		above, err := Counts{n, 100 * (1 + 1e-12), n, 100}.E()
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(below.Log()-above.Log()) > 1e-5 {
			t.Errorf("n %d: %v and %v", n, below.Log(), above.Log())
		}
	}
}

func TestNeeded(t *testing.T) {
	for _, c := range []struct {
		listed  int
		minimum float64
		want    float64
	}{
		{0, 0, 20}, {1, 10, 20}, {1, 20, 20}, {3, 20, 60}, {1, 50, 50}, {3, 50, 60},
	} {
		if got := Needed(c.listed, c.minimum); got != c.want {
			t.Errorf("Needed(%d, %v) = %v, want %v", c.listed, c.minimum, got, c.want)
		}
	}
}

func TestMean(t *testing.T) {
	if e := Mean(nil); e.Value() != 1 {
		t.Errorf("mean of none is %v", e.Value())
	}
	huge := E{math.Log(math.MaxFloat64) * 3}
	if e := Mean([]E{huge, {}}); math.Abs(e.Log()-huge.Log()+math.Ln2) > 1e-9 {
		t.Errorf("mean with a huge one: ln %v", e.Log())
	}
	if e := huge.Value(); e != math.MaxFloat64 {
		t.Errorf("a huge E prints as %v", e)
	}
	if Pauses([]E{{math.Log(15)}, {math.Log(4)}}) || !Pauses([]E{{math.Log(19)}, {math.Log(4)}}) {
		t.Error("a rollout pauses at a mean of 10")
	}
}

func TestProposes(t *testing.T) {
	strong := func(f1, f0 int64) []Day { return []Day{{F1: f1, F0: f0, R1: 1000, R0: 1000}} }
	for _, c := range []struct {
		name    string
		days    []Day
		watched int
		want    bool
	}{
		{"clear", strong(60, 10), 1, true},
		{"too few devices", strong(9, 0), 1, false},
		{"enough devices, only offered crash", strong(30, 0), 1, true},
		{"too small a rise", []Day{{F1: 24_000, F0: 20_000, R1: 1_000_000, R0: 1_000_000}}, 1, false},
		{"enough for one, not for many", strong(35, 10), 2000, false},
		{"nothing", nil, 1, false},
	} {
		e, err := Logrank(c.days)
		if err != nil {
			t.Fatal(err)
		}
		if got := Proposes(e, c.days, c.watched); got != c.want {
			t.Errorf("%s: %v, want %v (E %.3g, rise %.2f)", c.name, got, c.want, e.Value(), Rise(c.days))
		}
	}
}
