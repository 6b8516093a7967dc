package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keys is the part of a file that is policy. A nil field isn't set there.
type keys struct {
	Install struct {
		Allow      *bool     `toml:"allow"`
		Automatic  *string   `toml:"automatic"`
		Defer      *duration `toml:"defer"`
		Deadline   *duration `toml:"deadline"`
		BatteryMin *int      `toml:"battery_min"`
		Metered    *string   `toml:"metered"`
	} `toml:"install"`
	Activate struct {
		Relaunch *string  `toml:"relaunch"`
		Restart  *string  `toml:"restart"`
		Window   *Windows `toml:"window"`
	} `toml:"activate"`
	Remove struct {
		AllowUser    *bool `toml:"allow_user"`
		RequireAdmin *bool `toml:"require_admin"`
	} `toml:"remove"`
	Recall struct {
		Accept *bool `toml:"accept"`
	} `toml:"recall"`
	Recommend struct {
		Show *bool `toml:"show"`
	} `toml:"recommend"`
	Analytics struct {
		Share *string `toml:"share"`
	} `toml:"analytics"`
	UI struct {
		Mode *string `toml:"mode"`
	} `toml:"ui"`
	Trust struct {
		FreshnessMax *duration `toml:"freshness_max"`
		Enforcement  *string   `toml:"enforcement"`
		Corruption   *string   `toml:"corruption"`
		Execution    *string   `toml:"execution"`
	} `toml:"trust"`
	Pin struct {
		Release *string `toml:"release"`
	} `toml:"pin"`
}

// combine goes through the table of keys: the default, then each file in
// order by the key's rule.
func (c *Config) combine(files []source) error {
	p := &c.Policy
	steps := []func(*table){
		entry("install.allow", &p.InstallAllow, true, and, func(k *keys) *bool { return k.Install.Allow }),
		entry("install.automatic", &p.InstallAutomatic, "user", strictest("user", "always", "never"), func(k *keys) *string { return k.Install.Automatic }),
		entry("install.defer", (*duration)(&p.InstallDefer), 0, largest[duration](0, duration(14*day)), func(k *keys) *duration { return k.Install.Defer }),
		entry("install.deadline", (*duration)(&p.InstallDeadline), duration(72*time.Hour), smallest[duration](0, duration(365*day)), func(k *keys) *duration { return k.Install.Deadline }),
		entry("install.battery_min", &p.InstallBatteryMin, 10, largest(0, 100), func(k *keys) *int { return k.Install.BatteryMin }),
		entry("install.metered", &p.InstallMetered, "small", strictest("allow", "small", "deny"), func(k *keys) *string { return k.Install.Metered }),
		entry("activate.relaunch", &p.ActivateRelaunch, "notify", strictest("never", "notify", "force"), func(k *keys) *string { return k.Activate.Relaunch }),
		entry("activate.restart", &p.ActivateRestart, "notify", strictest("never", "notify", "window"), func(k *keys) *string { return k.Activate.Restart }),
		entry("activate.window", &p.ActivateWindow, nil, intersect, func(k *keys) *Windows { return k.Activate.Window }),
		entry("remove.allow_user", &p.RemoveAllowUser, true, and, func(k *keys) *bool { return k.Remove.AllowUser }),
		entry("remove.require_admin", &p.RemoveAdmin, true, or, func(k *keys) *bool { return k.Remove.RequireAdmin }),
		entry("recall.accept", &p.RecallAccept, true, and, func(k *keys) *bool { return k.Recall.Accept }),
		entry("recommend.show", &p.RecommendShow, true, and, func(k *keys) *bool { return k.Recommend.Show }),
		entry("analytics.share", &p.AnalyticsShare, "user", strictest("user", "never"), func(k *keys) *string { return k.Analytics.Share }),
		entry("ui.mode", &p.UIMode, "desktop", last("desktop", "tty", "none"), func(k *keys) *string { return k.UI.Mode }),
		entry("trust.freshness_max", (*duration)(&p.TrustFreshnessMax), duration(7*day), smallest(duration(time.Hour), duration(365*day)), func(k *keys) *duration { return k.Trust.FreshnessMax }),
		entry("trust.enforcement", &p.TrustEnforcement, "any", strictest("any", "kernel"), func(k *keys) *string { return k.Trust.Enforcement }),
		entry("trust.corruption", &p.TrustCorruption, "eio", strictest("eio", "restart", "panic"), func(k *keys) *string { return k.Trust.Corruption }),
		entry("trust.execution", &p.TrustExecution, "enforce", strictest("off", "audit", "enforce"), func(k *keys) *string { return k.Trust.Execution }),
		entry("pin.release", &p.PinRelease, "", last[string](), func(k *keys) *string { return k.Pin.Release }),
	}
	t := &table{files: files}
	for _, step := range steps {
		if step(t); t.err != nil {
			return t.err
		}
	}
	c.Origins = t.origins
	return nil
}

type table struct {
	files   []source
	origins []Setting
	err     error
}

// rule combines the values that several files give one key.
type rule[T any] struct {
	name  string
	check func(T) error
	// pick returns the combination of what came before with the next value,
	// and whether the next value's file is now the one that decides.
	pick func(before, next T) (T, bool)
}

// entry is one line of the table. The first file that sets a key replaces the
// default; each further one is combined by the rule.
func entry[T any](name string, dst *T, fallback T, r rule[T], get func(*keys) *T) func(*table) {
	return func(t *table) {
		*dst = fallback
		won := Setting{Key: name, Rule: r.name}
		set := false
		for i := range t.files {
			f := &t.files[i]
			v := get(&f.keys)
			if v == nil {
				continue
			}
			if err := r.check(*v); err != nil {
				t.err = problem(f.file, lineOf(f.file, name), "%s: %w", name, err)
				return
			}
			wins := true
			if set {
				*dst, wins = r.pick(*dst, *v)
			} else {
				*dst = *v
			}
			if set = true; wins {
				won.File, won.Owner = f.file, f.owner
			}
		}
		won.Value = show(*dst)
		t.origins = append(t.origins, won)
	}
}

func show(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case string:
		return strconv.Quote(v)
	case duration:
		return strconv.Quote(formatDuration(time.Duration(v)))
	case Windows:
		return strconv.Quote(v.String())
	}
	return fmt.Sprint(v)
}

// lineOf finds the line on which a key stands, 0 if it can't be found.
func lineOf(file, key string) int {
	data, err := read(file)
	if err != nil {
		return 0
	}
	section, word, _ := strings.Cut(key, ".")
	in := ""
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			in = strings.Trim(line, "[] \t")
			continue
		}
		name, _, _ := strings.Cut(line, "=")
		name = strings.ReplaceAll(strings.TrimSpace(name), " ", "")
		if in == section && name == word || in == "" && name == key {
			return i + 1
		}
	}
	return 0
}

func anything[T any](T) error { return nil }

var (
	and = rule[bool]{"and", anything[bool], func(a, b bool) (bool, bool) { return a && b, a && !b }}
	or  = rule[bool]{"or", anything[bool], func(a, b bool) (bool, bool) { return a || b, !a && b }}
)

// strictest takes the word that stands last among the given ones.
func strictest(words ...string) rule[string] {
	return rule[string]{"strictest", oneOf(words), func(a, b string) (string, bool) {
		if slices.Index(words, b) > slices.Index(words, a) {
			return b, true
		}
		return a, false
	}}
}

// last takes the last file's word.
func last[T ~string](words ...T) rule[T] {
	return rule[T]{"last", oneOf(words), func(_, b T) (T, bool) { return b, true }}
}

func oneOf[T ~string](words []T) func(T) error {
	return func(v T) error {
		if len(words) == 0 || slices.Contains(words, v) {
			return nil
		}
		return fmt.Errorf("%q is none of %s", v, join(words))
	}
}

func join[T ~string](words []T) string {
	s := make([]string, len(words))
	for i, w := range words {
		s[i] = string(w)
	}
	return strings.Join(s, ", ")
}

func largest[T int | duration](low, high T) rule[T] {
	return rule[T]{"max", between(low, high), func(a, b T) (T, bool) { return max(a, b), b > a }}
}

func smallest[T int | duration](low, high T) rule[T] {
	return rule[T]{"min", between(low, high), func(a, b T) (T, bool) { return min(a, b), b < a }}
}

func between[T int | duration](low, high T) func(T) error {
	return func(v T) error {
		if v < low || v > high {
			return fmt.Errorf("%s is not between %s and %s", show(v), show(low), show(high))
		}
		return nil
	}
}

// intersect keeps every window: a time is inside only if it is inside all.
var intersect = rule[Windows]{"intersect", anything[Windows], func(a, b Windows) (Windows, bool) {
	return append(slices.Clone(a), b...), true
}}

const day = 24 * time.Hour

// duration is written "90m", "72h" or "14d".
type duration time.Duration

// UnmarshalText reads it.
func (d *duration) UnmarshalText(text []byte) error {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 3650 {
			return fmt.Errorf("%q is not a duration (90m, 72h, 14d)", s)
		}
		*d = duration(time.Duration(n) * day)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration (90m, 72h, 14d)", s)
	}
	*d = duration(v)
	return nil
}

// formatDuration writes whole days from two days on as days.
func formatDuration(d time.Duration) string {
	switch {
	case d >= 2*day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
