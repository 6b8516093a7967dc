package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/setlog"
)

// maxConfig is the limit for a configuration file, in bytes.
const maxConfig = 1 << 20

// config is sealsrv.toml. docs/server.md explains every key. Paths are relative
// to the folder of the file.
type config struct {
	Listen     string `toml:"listen"`
	Database   string `toml:"database"`   // a file, or postgres://…
	Repository string `toml:"repository"` // folder of the catalog
	Root       string `toml:"root"`       // pinned root metadata
	State      string `toml:"state"`      // folder for the verified state of the catalog
	Security   string `toml:"security"`   // folder of the public pages

	TLS struct {
		Cert string `toml:"cert"`
		Key  string `toml:"key"`
	} `toml:"tls"`

	Tickets struct {
		Root string `toml:"root"` // certificate that devices pin
		Leaf string `toml:"leaf"` // signing key, from sealsrv leaf new
		// Key files of leaves that are certificates alone: keys in tokens.
		LeafKeys []string `toml:"leaf_keys"`
	} `toml:"tickets"`

	Enroll struct {
		// Certificates of makers of TPMs, PEM: roots and intermediates.
		EKRoots string `toml:"ek_roots"`
	} `toml:"enroll"`

	Reports struct {
		TokenKey string `toml:"token_key"` // of the tokens that reports spend; none: reports need none
	} `toml:"reports"`

	Keys struct {
		Online []string `toml:"online"` // rollout, snapshot, timestamp
		Recall []string `toml:"recall"`
		Advice []string `toml:"advice"`
	} `toml:"keys"`

	// The public log of sets; without a key there is none.
	Log struct {
		Name string `toml:"name"`
		Key  string `toml:"key"`
	} `toml:"log"`

	Limits struct {
		AtOnce         int `toml:"at_once"`
		TicketsPerHour int `toml:"tickets_per_hour"`
		Burst          int `toml:"burst"`
	} `toml:"limits"`
}

// Where a development folder keeps things: the vendor's as sealpub init lays
// them, the server's own below server/.
const devServer = "server"

func devConfig(dir string) *config {
	in := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	c := &config{
		Listen: "127.0.0.1:8470", Database: in(devServer, "fleet.db"), Repository: in("repo"), Root: in("root.json"),
		State: in(devServer, "state"), Security: in("security"),
	}
	c.Tickets.Root, c.Tickets.Leaf = in("ticket-root.pem"), in(devServer, "leaf.pem")
	for _, role := range []string{"rollout", "snapshot", "timestamp"} {
		c.Keys.Online = append(c.Keys.Online, keyFiles(in("keys", "online"), role)...)
	}
	c.Log.Key = in("keys", "online", "log.key")
	c.Keys.Recall, c.Keys.Advice = keyFiles(in("keys"), "recall"), keyFiles(in("keys"), "advice")
	return c
}

// keyFiles are the key files of a role: recall.key, or those that stand beside
// it or in its place, recall-1.key and so on.
func keyFiles(dir, role string) []string {
	one := filepath.Join(dir, role+".key")
	several, err := filepath.Glob(filepath.Join(dir, role+"-*.key"))
	if err != nil || len(several) == 0 {
		return []string{one}
	}
	if _, err := os.Stat(one); err == nil {
		several = append(several, one)
	}
	return several
}

// configOf reads the configuration that the flags name.
func configOf(cmd *cobra.Command) (*config, error) {
	dir, err := cmd.Flags().GetString("dir")
	if err != nil {
		return nil, err
	}
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return readConfig(file)
	}
	if cmd.Flags().Changed("config") {
		return nil, fault.New(fault.Usage, "--dir and --config can't be used together")
	}
	if _, err := os.Stat(filepath.Join(dir, "vendor.json")); err != nil {
		return nil, fault.New(fault.Usage, "%s is no development folder: it has no vendor.json", dir).Hint("sealsrv dev --dir %s makes one", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, devServer), 0o700); err != nil {
		return nil, err
	}
	c := devConfig(dir)
	switch key, err := readSmall(filepath.Join(dir, "log-key.txt")); {
	case errors.Is(err, fs.ErrNotExist):
		c.Log.Key = "" // a vendor whose devices pin no log
	case err != nil:
		return nil, err
	default:
		v, err := setlog.ParseKey(key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "log-key.txt"), err)
		}
		c.Log.Name = v.Name()
	}
	return c, nil
}

func readConfig(file string) (*config, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Usage, "there is no configuration %s", file).Hint("name it with --config, or a development folder with --dir")
	} else if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	if info.Size() > maxConfig {
		return nil, fault.New(fault.Usage, "cannot read %s: it has %d bytes, at most %d are possible", file, info.Size(), maxConfig)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	c := &config{}
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, fault.New(fault.Usage, "cannot read %s: %s", file, where(err))
	}
	c.resolve(filepath.Dir(file))
	if err := c.check(); err != nil {
		return nil, fault.New(fault.Usage, "cannot use %s: %w", file, err)
	}
	return c, nil
}

// where names the line and the key of a mistake in a TOML file.
func where(err error) string {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		e := unknown.Errors[0]
		row, _ := e.Position()
		return fmt.Sprintf("line %d: unknown key %s", row, strings.Join(e.Key(), "."))
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		row, _ := bad.Position()
		return fmt.Sprintf("line %d: %s", row, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	return err.Error()
}

func (c *config) resolve(dir string) {
	paths := []*string{&c.Repository, &c.Root, &c.State, &c.Security, &c.TLS.Cert, &c.TLS.Key, &c.Tickets.Root, &c.Tickets.Leaf, &c.Enroll.EKRoots, &c.Reports.TokenKey, &c.Log.Key}
	for _, list := range []*[]string{&c.Keys.Online, &c.Keys.Recall, &c.Keys.Advice, &c.Tickets.LeafKeys} {
		for i := range *list {
			paths = append(paths, &(*list)[i])
		}
	}
	if u, err := url.Parse(c.Database); err != nil || u.Scheme == "" || u.Scheme == "sqlite" {
		c.Database = strings.TrimPrefix(c.Database, "sqlite:")
		paths = append(paths, &c.Database)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// check says which key is missing.
func (c *config) check() error {
	for key, value := range map[string]string{
		"listen": c.Listen, "database": c.Database, "repository": c.Repository, "root": c.Root, "state": c.State,
		"tickets.root": c.Tickets.Root, "tickets.leaf": c.Tickets.Leaf,
	} {
		if value == "" {
			return fmt.Errorf("the key %s is missing", key)
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return errors.New("tls.cert and tls.key belong together")
	}
	if (c.Log.Name == "") != (c.Log.Key == "") {
		return errors.New("log.name and log.key belong together")
	}
	for key, n := range map[string]int{"at_once": c.Limits.AtOnce, "tickets_per_hour": c.Limits.TicketsPerHour, "burst": c.Limits.Burst} {
		if n < 0 || n > 1_000_000 {
			return fmt.Errorf("limits.%s is %d, possible are 1 to 1000000", key, n)
		}
	}
	return nil
}
