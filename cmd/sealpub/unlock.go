package main

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/program"
	"github.com/sealant-os/sealant/trust/signer"
)

// Where a passphrase comes from besides the terminal.
const (
	passphraseEnv     = "SEALANT_PASSPHRASE"
	passphraseFileEnv = "SEALANT_PASSPHRASE_FILE"
	maxPassphrase     = 1024 // bytes
)

// secret is the passphrase of keys: from a file, the environment, or the
// terminal, in this order.
type secret struct {
	file string
}

// flags adds --passphrase-file to a command that opens or makes keys.
func (p *secret) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "passphrase-file", "", "read the keys' passphrase from this file instead of asking\n(also: "+passphraseFileEnv+", or the passphrase itself in "+passphraseEnv+")")
}

// given returns the passphrase if one was given without asking, nil if not.
func (p *secret) given() ([]byte, error) {
	file := p.file
	if file == "" {
		file = os.Getenv(passphraseFileEnv)
	}
	if file == "" {
		if v := os.Getenv(passphraseEnv); v != "" {
			return []byte(v), nil
		}
		return nil, nil
	}
	text, err := readSmall(file, maxPassphrase)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the passphrase: %w", err)
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if len(text) == 0 {
		return nil, fault.New(fault.Usage, "cannot read the passphrase: %s is empty", file)
	}
	return text, nil
}

// ask returns the passphrase of an existing key.
func (p *secret) ask(s *cli.Screen, name string) ([]byte, error) {
	if given, err := p.given(); given != nil || err != nil {
		return given, err
	}
	word, err := s.Secret("Passphrase of " + name)
	return word, hintPassphrase(err)
}

// choose returns the passphrase for a new key.
func (p *secret) choose(s *cli.Screen, name string) ([]byte, error) {
	word, err := p.given()
	if word == nil && err == nil {
		return typeNew(s, name)
	}
	if err == nil && len(word) < signer.MinPassphrase {
		err = shortPassphrase(name)
	}
	return word, err
}

// typeNew asks for a new passphrase twice.
func typeNew(s *cli.Screen, name string) ([]byte, error) {
	word, err := s.Secret("New passphrase of " + name)
	if err != nil {
		return nil, hintPassphrase(err)
	}
	if len(word) < signer.MinPassphrase {
		return nil, shortPassphrase(name)
	}
	again, err := s.Secret("The same again")
	if err == nil && !bytes.Equal(word, again) {
		err = fault.New(fault.Usage, "cannot encrypt key %s: the two passphrases differ", name)
	}
	return word, err
}

func shortPassphrase(name string) error {
	return fault.New(fault.Usage, "cannot encrypt key %s: the passphrase has fewer than %d characters", name, signer.MinPassphrase)
}

func hintPassphrase(err error) error {
	if err == nil || fault.HintOf(err) != "" {
		return err
	}
	return fault.New(fault.KindOf(err), "%w", err).Hint("--passphrase-file FILE, or %s in the environment", passphraseEnv)
}

// readBegin reads a file, but not more than one byte beyond limit: enough for a
// parser to see that it is too long.
func readBegin(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// readSmall reads a file that has at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	text, err := readBegin(path, limit)
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return text, nil
}

// readKey reads a key file without opening it.
func readKey(path string) (*signer.Key, error) {
	text, err := readSmall(path, signer.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read key: %w", err)
	}
	k, err := signer.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// openKey reads a key file and makes its key ready to sign: a software key is
// unlocked, for any other its program is started. The caller calls done when
// it needs the key no longer.
func openKey(ctx context.Context, s *cli.Screen, path string, p *secret) (key crypto.Signer, done func() error, err error) {
	k, err := readKey(path)
	if err != nil {
		return nil, nil, err
	}
	if at, ok := k.Program(); ok {
		proc, err := program.Start(ctx, at.Command, s.Err)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot use key %s: %w", k.Name, err)
		}
		key, err := k.Connect(proc)
		if err != nil {
			return nil, nil, errors.Join(err, proc.Close())
		}
		return key, proc.Close, nil
	}
	var word []byte
	if k.Encrypted() {
		if word, err = p.ask(s, k.Name); err != nil {
			return nil, nil, err
		}
	}
	key, err = k.Unlock(word)
	if errors.Is(err, signer.ErrPassphrase) {
		err = fault.New(fault.Refused, "%w", err)
	}
	if err != nil {
		return nil, nil, err
	}
	return key, func() error { return nil }, nil
}
