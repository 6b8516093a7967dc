// Package policy reads how a device is configured: what may be installed and
// when, how apps are relaunched, which server it asks. spec/policy.md lists
// every key.
//
// Parties: the OS vendor or the person writes agent.toml and apps.d; an
// administrator writes policy.d. Several files may set one key; every key has
// one fixed rule that combines them, so that a result never depends on
// anything but the files. An unknown key, a wrong type or a value out of range
// is an error that names the file and the line: a misspelt restriction must
// not be silently absent.
package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/sealant-os/sealant/internal/fault"
)

// Limits of what is read.
const (
	maxFile  = 256 << 10 // bytes of one file
	maxFiles = 200       // files of one folder
)

// Config is everything that a device's configuration says, combined.
type Config struct {
	Agent   Agent
	Policy  Policy
	Apps    []App     // sorted by ID
	Origins []Setting // where each key of the policy came from, in the order of the table
}

// Agent is what only agent.toml can say.
type Agent struct {
	Server  string   // base URL of the server, "" if none is configured
	Mirrors []string // base URLs that are asked for the catalog's files before the server
	Name    string   // what people call this device, "" for its host name
	Poll    time.Duration
	Restart []string // command that restarts the device; empty for systemctl reboot
	Metered string   // auto, yes, no: whether the network costs money
}

// Policy is the combined policy. The zero value is not the default; use Load.
type Policy struct {
	InstallAllow      bool
	InstallAutomatic  string // user, always, never
	InstallDefer      time.Duration
	InstallDeadline   time.Duration
	InstallBatteryMin int    // percent
	InstallMetered    string // allow, small, deny
	ActivateRelaunch  string // never, notify, force
	ActivateRestart   string // never, notify, window
	ActivateWindow    Windows
	RemoveAllowUser   bool
	RemoveAdmin       bool
	RecallAccept      bool
	RecommendShow     bool
	AnalyticsShare    string // user, never
	UIMode            string // desktop, tty, none
	TrustFreshnessMax time.Duration
	TrustEnforcement  string // any, kernel
	TrustCorruption   string // eio, restart, panic
	TrustExecution    string // off, audit, enforce
	PinRelease        string // "" for none
}

// Setting says where the value of one key came from.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"` // as it would stand in a file
	Rule  string `json:"rule"`  // how several files combine
	File  string `json:"file"`  // the file that won, "" for the default
	Owner string `json:"owner"` // who set it, if that file says; for "Set by …"
}

// Managed says whether a key was set by policy.d rather than by the device's
// own agent.toml, and by whom.
func (c *Config) Managed(key string) (owner string, ok bool) {
	for _, s := range c.Origins {
		if s.Key == key && filepath.Base(filepath.Dir(s.File)) == "policy.d" {
			return s.Owner, true
		}
	}
	return "", false
}

// Set says whether any file sets a key of the policy.
func (c *Config) Set(key string) bool {
	for _, s := range c.Origins {
		if s.Key == key {
			return s.File != ""
		}
	}
	return false
}

// App finds an app by its id.
func (c *Config) App(id string) (App, bool) {
	for _, a := range c.Apps {
		if a.ID == id {
			return a, true
		}
	}
	return App{}, false
}

// Small is the largest download, in bytes, that install.metered = "small"
// lets through a metered network.
const Small = 20 << 20

// UrgentDefer caps install.defer for improvements against known attacks.
const UrgentDefer = 24 * time.Hour

// DeferFor is how long an improvement waits after it was published.
func (p Policy) DeferFor(exploited bool) time.Duration {
	if exploited {
		return min(p.InstallDefer, UrgentDefer)
	}
	return p.InstallDefer
}

// Load reads agent.toml, policy.d/*.toml and apps.d/*.toml below dir. Files
// that are not there are empty; the defaults of experience apply.
func Load(dir string) (*Config, error) {
	c := &Config{Agent: Agent{Poll: DefaultPoll, Metered: "auto"}}
	var files []source
	if data, err := read(filepath.Join(dir, "agent.toml")); err == nil {
		var f agentFile
		if err := decode(filepath.Join(dir, "agent.toml"), data, &f); err != nil {
			return nil, err
		}
		if err := f.apply(&c.Agent); err != nil {
			return nil, problem(filepath.Join(dir, "agent.toml"), 0, "%w", err)
		}
		files = append(files, source{file: filepath.Join(dir, "agent.toml"), keys: f.keys})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names, err := list(filepath.Join(dir, "policy.d"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		data, err := read(name)
		if err != nil {
			return nil, err
		}
		var f policyFile
		if err := decode(name, data, &f); err != nil {
			return nil, err
		}
		files = append(files, source{file: name, owner: f.Owner, keys: f.keys})
	}
	if err := c.combine(files); err != nil {
		return nil, err
	}
	c.Apps, err = loadApps(filepath.Join(dir, "apps.d"))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// source is one file's part of the policy.
type source struct {
	file, owner string
	keys        keys
}

// DefaultPoll is how often the agent asks for news; jitter is added.
const DefaultPoll = 15 * time.Minute

type agentFile struct {
	Server struct {
		URL     string   `toml:"url"`
		Mirrors []string `toml:"mirrors"`
		Poll    duration `toml:"poll"`
	} `toml:"server"`
	Device struct {
		Name string `toml:"name"`
	} `toml:"device"`
	Network struct {
		Metered string `toml:"metered"`
	} `toml:"network"`
	Restart struct {
		Command []string `toml:"command"`
	} `toml:"restart"`
	keys
}

func (f agentFile) apply(a *Agent) error {
	for _, u := range append([]string{f.Server.URL}, f.Server.Mirrors...) {
		if u != "" && !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
			return fmt.Errorf("server: %q is not an http or https URL", u)
		}
	}
	a.Server, a.Mirrors, a.Name, a.Restart = f.Server.URL, f.Server.Mirrors, f.Device.Name, f.Restart.Command
	if f.Server.Poll != 0 {
		a.Poll = time.Duration(f.Server.Poll)
		if a.Poll < time.Second || a.Poll > 7*24*time.Hour {
			return fmt.Errorf("server.poll: %s is not between 1s and 7d", formatDuration(a.Poll))
		}
	}
	switch f.Network.Metered {
	case "":
	case "auto", "yes", "no":
		a.Metered = f.Network.Metered
	default:
		return fmt.Errorf("network.metered: %q is not auto, yes or no", f.Network.Metered)
	}
	return nil
}

type policyFile struct {
	Owner string `toml:"owner"` // whom to name in "Set by …"
	keys
}

// decode parses one file strictly; problems name the line.
func decode(file string, data []byte, v any) error {
	d := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		return nil
	}
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		first := unknown.Errors[0]
		line, _ := first.Position()
		return problem(file, line, "unknown key %s", strings.Join(first.Key(), "."))
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, _ := bad.Position()
		if key := strings.Join(bad.Key(), "."); key != "" {
			return problem(file, line, "%s: %s", key, strings.TrimPrefix(bad.Error(), "toml: "))
		}
		return problem(file, line, "%s", strings.TrimPrefix(bad.Error(), "toml: "))
	}
	return problem(file, 0, "%w", err)
}

func problem(file string, line int, format string, args ...any) error {
	where := file
	if line > 0 {
		where = fmt.Sprintf("%s:%d", file, line)
	}
	return fault.New(fault.Usage, "cannot use configuration: %s: %w", where, fmt.Errorf(format, args...)).
		Hint("correct the file; spec/policy.md lists every key")
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, problem(path, 0, "larger than %d bytes", maxFile)
	}
	return data, nil
}

// list names the *.toml files of a folder, sorted; a missing folder is empty.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".toml") && e.Name()[0] != '.' {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	if len(names) > maxFiles {
		return nil, problem(dir, 0, "%d files, at most %d", len(names), maxFiles)
	}
	return names, nil
}
