package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/signer"
)

func newKeysPassphrase() *cobra.Command {
	var pass secret
	var newFile string
	cmd := &cobra.Command{
		Use:   "passphrase FILE",
		Short: "change the passphrase of a key",
		Long: `Encrypts a key under a new passphrase, or an unencrypted one for the first time.
The key itself stays the same. The file is replaced in one step.

  sealpub keys passphrase alice.key`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			k, err := readKey(args[0])
			if err != nil {
				return err
			}
			if _, ok := k.Program(); ok {
				return fault.New(fault.Usage, "cannot change the passphrase of key %s: it lives in a program", k.Name)
			}
			key, done, err := openKey(cmd.Context(), s, args[0], &pass)
			if err != nil {
				return err
			}
			defer done()
			// The environment holds the old passphrase, so it can't hold the new one.
			var word []byte
			if newFile == "" {
				word, err = typeNew(s, k.Name)
			} else {
				word, err = (&secret{file: newFile}).choose(s, k.Name)
			}
			if err != nil {
				return err
			}
			text, err := signer.Encrypt(k.Name, key, word)
			if err != nil {
				return err
			}
			if err := replaceFile(args[0], text); err != nil {
				return fmt.Errorf("cannot write key: %w", err)
			}
			return made(s, args[0])
		},
	}
	pass.flags(cmd)
	cmd.Flags().StringVar(&newFile, "new-passphrase-file", "", "read the new passphrase from this file instead of asking")
	return cmd
}

// replaceFile puts text in the place of a file: the old one stays until the
// new one is whole and on the disk.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		if err = os.Rename(f.Name(), path); err == nil {
			var folder *os.File
			if folder, err = os.Open(filepath.Dir(path)); err == nil {
				return errors.Join(folder.Sync(), folder.Close())
			}
		}
	}
	return errors.Join(err, os.Remove(f.Name()))
}
