package policy

import (
	"fmt"
	"strings"
	"time"
)

// Window is a part of the day, in local time. End before Start runs over midnight.
type Window struct{ Start, End time.Duration } // since midnight

// Windows must all contain a time for it to be inside; none means always.
type Windows []Window

// UnmarshalText reads "02:00-05:00".
func (w *Windows) UnmarshalText(text []byte) error {
	from, to, ok := strings.Cut(string(text), "-")
	start, err1 := clock(from)
	end, err2 := clock(to)
	if !ok || err1 != nil || err2 != nil || start == end {
		return fmt.Errorf("%q is not a window such as 02:00-05:00", text)
	}
	*w = Windows{{start, end}}
	return nil
}

func clock(s string) (time.Duration, error) {
	t, err := time.Parse("15:04", strings.TrimSpace(s))
	if err != nil {
		return 0, err
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// Contain says whether t is inside all windows.
func (w Windows) Contain(t time.Time) bool {
	at := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	for _, x := range w {
		inside := at >= x.Start && at < x.End
		if x.End < x.Start {
			inside = at >= x.Start || at < x.End
		}
		if !inside {
			return false
		}
	}
	return true
}

// String writes the windows with " and " between them.
func (w Windows) String() string {
	var parts []string
	for _, x := range w {
		parts = append(parts, fmt.Sprintf("%02d:%02d-%02d:%02d",
			x.Start/time.Hour, x.Start%time.Hour/time.Minute, x.End/time.Hour, x.End%time.Hour/time.Minute))
	}
	return strings.Join(parts, " and ")
}
