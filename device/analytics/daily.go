package analytics

import (
	"sort"
	"time"

	"github.com/sealant-os/sealant/internal/report"
)

// Improvement is a rollout that days are told about.
type Improvement struct {
	Release string
	OSBuild string
	Began   string // the UTC day on which it was published
	Offered bool   // to this device, now
}

// Use is what is known of an app on a day.
type Use struct {
	Used    bool // it was used on that day
	Crashed bool // it crashed on that day
	Before  bool // it crashed before, since the rollout began
}

// Days makes the reports of the days that are over and were not looked at yet, and
// puts those that may be told among the waiting. Devices are compared as they were
// offered the improvement in the morning of a day, so what is offered in the evening
// counts for the next. use tells of an app's day; watched are the apps to tell of.
func (d *Desk) Days(now time.Time, arch string, improvements []Improvement, watched []string, use func(app, day, began string) Use) error {
	yesterday := now.UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	s, err := d.read()
	if err != nil {
		return err
	}
	if _, on := s.Since[Own]; !on {
		return nil
	}
	built, offered := s.Built, s.Offered
	if built > yesterday {
		built = "" // the clock was wrong
	}
	if built == yesterday {
		return nil
	}
	if built != "" {
		for day := nextDay(max(built, now.UTC().AddDate(0, 0, -8).Format(time.DateOnly))); day <= yesterday; day = nextDay(day) {
			for _, i := range improvements {
				arm, known := offered[i.Release]
				if !known || day <= i.Began {
					continue
				}
				if err := d.day(now, day, arch, arm, i, watched, use); err != nil {
					return err
				}
			}
		}
	}
	return d.change(func(s *state) bool {
		s.Built, s.Offered = yesterday, map[string]bool{}
		for _, i := range improvements {
			s.Offered[i.Release] = i.Offered
		}
		return true
	})
}

func nextDay(day string) string {
	t, _ := time.Parse(time.DateOnly, day) // every day here was formatted
	return t.AddDate(0, 0, 1).Format(time.DateOnly)
}

func (d *Desk) day(now time.Time, day, arch string, offered bool, i Improvement, watched []string, use func(app, day, began string) Use) error {
	body, err := d.Daily(day, arch, offered, i, watched, use)
	if err != nil || body == nil {
		return err
	}
	_, err = d.Add(Own, body, now)
	return err
}

// Daily makes the exact bytes of one day's report, nil if there is nothing to tell:
// no watched app was used.
func (d *Desk) Daily(day, arch string, offered bool, i Improvement, watched []string, use func(app, day, began string) Use) ([]byte, error) {
	name, err := d.Name()
	if err != nil {
		return nil, err
	}
	r := report.Daily{
		Schema: report.DailySchema, Name: name, Improvement: i.Release, OSBuild: i.OSBuild, Arch: arch, Arm: report.Control, Day: day,
	}
	if offered {
		r.Arm = report.Offered
	}
	apps := append([]string{}, watched...)
	sort.Strings(apps)
	for _, app := range apps {
		u := use(app, day, i.Began)
		if !u.Used || len(r.Apps) == report.MaxApps {
			continue
		}
		risk := !u.Before
		r.Apps = append(r.Apps, report.App{App: app, AtRisk: risk, FirstCrash: risk && u.Crashed})
	}
	if len(r.Apps) == 0 {
		return nil, nil
	}
	return r.Encode()
}

// Recommended makes the report of a moment of a question, and puts it among the
// waiting if that may be told.
func (d *Desk) Recommended(now time.Time, improvement, app, outcome string) error {
	name, err := d.Name()
	if err != nil {
		return err
	}
	body, err := report.Recommendation{
		Schema: report.RecommendationSchema, Name: name, Improvement: improvement, App: app, Outcome: outcome,
	}.Encode()
	if err != nil {
		return err
	}
	_, err = d.Add(Own, body, now)
	return err
}
