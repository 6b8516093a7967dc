package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/program"
	signed "github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/rollout"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/signer"
)

// maxSmall is the limit for roots and certificates, in bytes.
const maxSmall = 1 << 20

// readSmall reads a small file whole.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(data) > maxSmall {
		err = fmt.Errorf("%s has more than %d bytes", path, maxSmall)
	}
	return data, err
}

// openStore opens the database.
func openStore(ctx context.Context, c *config) (*store.DB, error) { return store.Open(ctx, c.Database) }

// openSource opens the catalog for reading, verified from the pinned root.
func openSource(ctx context.Context, c *config, state string) (*catalog.Source, error) {
	pinned, err := readSmall(c.Root)
	if err != nil {
		return nil, fmt.Errorf("cannot read the pinned root: %w", err)
	}
	return catalog.Open(ctx, catalog.Config{Dir: c.Repository, Root: pinned, State: state})
}

// openKeys reads and unlocks key files.
func openKeys(cmd *cobra.Command, paths []string) ([]crypto.Signer, error) {
	var keys []crypto.Signer
	for _, p := range paths {
		key, err := openKey(cmd, p)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func openKey(cmd *cobra.Command, path string) (crypto.Signer, error) {
	file, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	k, err := signer.Parse(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if at, ok := k.Program(); ok {
		// It ends with this command: its input does, and so does the context.
		proc, err := program.Start(cmd.Context(), at.Command, cmd.ErrOrStderr())
		if err != nil {
			return nil, fmt.Errorf("cannot use key %s: %w", k.Name, err)
		}
		return k.Connect(proc)
	}
	var passphrase []byte
	if k.Encrypted() {
		if passphrase, err = passphraseFor(cmd, k.Name); err != nil {
			return nil, err
		}
	}
	key, err := k.Unlock(passphrase)
	if errors.Is(err, signer.ErrPassphrase) {
		return nil, fault.New(fault.Refused, "%w", err)
	}
	return key, err
}

// passphraseFor finds a key's passphrase: in a file, or by asking.
func passphraseFor(cmd *cobra.Command, name string) ([]byte, error) {
	path, err := cmd.Flags().GetString("passphrase-file")
	if err != nil || path == "" {
		path = os.Getenv("SEALANT_PASSPHRASE_FILE")
	}
	if text, ok := os.LookupEnv("SEALANT_PASSPHRASE"); ok && path == "" {
		return []byte(text), nil
	}
	if path == "" {
		return cli.For(cmd).Secret("Passphrase of key " + name)
	}
	text, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the passphrase: %w", err)
	}
	for len(text) > 0 && (text[len(text)-1] == '\n' || text[len(text)-1] == '\r') {
		text = text[:len(text)-1]
	}
	return text, nil
}

// signingFlags give a command that uses people's keys its flags.
func signingFlags(cmd *cobra.Command) {
	cmd.Flags().StringArray("key", nil, "sign with this key file, and none of the configuration's; can be repeated")
	cmd.Flags().StringP("out", "o", "", "where a list waits that more people must sign (default NAME.json)")
	passphraseFlag(cmd)
}

// passphraseFlag gives a command that unlocks a key its flag.
func passphraseFlag(cmd *cobra.Command) {
	cmd.Flags().String("passphrase-file", "", "file with the key's passphrase (also: SEALANT_PASSPHRASE_FILE or SEALANT_PASSPHRASE in the environment); else it is asked for")
}

// Which of people's keys a desk needs.
const (
	needNone   = ""
	needRecall = "recall"
	needAdvice = "advice"
)

// atDesk opens what an operator's command needs, runs it, and closes.
func atDesk(cmd *cobra.Command, need string, act func(context.Context, *rollout.Desk) error) error {
	c, err := configOf(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	db, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	defer db.Close()
	desk := &rollout.Desk{DB: db, Now: time.Now, Actor: actor()}
	if desk.Repository, err = signed.OpenRepository(c.Repository); err != nil {
		return err
	}
	if desk.Online, err = openKeys(cmd, c.Keys.Online); err != nil {
		return err
	}
	switch need {
	case needRecall:
		desk.Recallers, err = openKeys(cmd, chosenKeys(cmd, c.Keys.Recall))
	case needAdvice:
		desk.Advisers, err = openKeys(cmd, chosenKeys(cmd, c.Keys.Advice))
	}
	if err != nil {
		return err
	}
	if len(desk.Online) > 0 {
		// What was published a moment ago counts.
		keeper := &catalog.Keeper{Repository: desk.Repository, Dir: c.Repository, Online: desk.Online, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
		if err := keeper.Refresh(); err != nil && fault.KindOf(err) != fault.Busy {
			return err
		}
	}
	// A command verifies from the pinned root each time; the state that keeps
	// versions from going back belongs to the server alone.
	state, err := os.MkdirTemp("", "sealsrv-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	if desk.Source, err = openSource(ctx, c, state); err != nil {
		return err
	}
	err = act(ctx, desk)
	if waits := (*rollout.Unfinished)(nil); errors.As(err, &waits) {
		return keepForOthers(cmd, waits.Ceremony, "")
	}
	return err
}

// chosenKeys are the key files that the command line names, else configured.
func chosenKeys(cmd *cobra.Command, configured []string) []string {
	if files, err := cmd.Flags().GetStringArray("key"); err == nil && len(files) > 0 {
		return files
	}
	return configured
}

// atStore opens the database, runs act, and closes.
func atStore(cmd *cobra.Command, act func(context.Context, *store.DB) error) error {
	c, err := configOf(cmd)
	if err != nil {
		return err
	}
	db, err := openStore(cmd.Context(), c)
	if err != nil {
		return err
	}
	defer db.Close()
	return act(cmd.Context(), db)
}

// actor names who runs the command, for the operators' log.
func actor() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// stamp is a time for people, "–" for none.
func stamp(s *cli.Screen, t time.Time) string {
	if t.IsZero() {
		return s.Dash()
	}
	return t.Local().Format("2006-01-02 15:04")
}
