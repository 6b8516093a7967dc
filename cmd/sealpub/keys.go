package main

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/program"
	"github.com/sealant-os/sealant/trust/signer"
)

func newKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "make, list and show signing keys",
		Long: `Keys sign what devices believe: the catalog's roles (Ed25519) and the root of
tickets (ECDSA P-384). A key file holds the private key encrypted under a
passphrase, or says in which program the key lives (a token, a cloud).

  sealpub keys new alice --for targets
  sealpub keys list`,
	}
	cmd.AddCommand(newKeysNew(), newKeysAttach(), newKeysList(), newKeysShow(), newKeysPassphrase())
	return cmd
}

// roles are what a key can be for, and the algorithm that goes with it.
var roles = map[string]signer.Algorithm{
	"root": signer.Ed25519, "targets": signer.Ed25519, "recall": signer.Ed25519, "advice": signer.Ed25519,
	"rollout": signer.Ed25519, "snapshot": signer.Ed25519, "timestamp": signer.Ed25519,
	"ticket-root": signer.P384,
}

func roleNames() string {
	var names []string
	for name := range roles {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// keyDocument is what there is to say of a key without its passphrase.
type keyDocument struct {
	Name      string           `json:"name"`
	Algorithm signer.Algorithm `json:"algorithm"`
	ID        string           `json:"id"`   // SHA-256 of the public key (SPKI, DER)
	Kept      string           `json:"kept"` // encrypted, unencrypted or program
	Program   *signer.Program  `json:"program,omitempty"`
	Public    string           `json:"public"` // PEM
	File      string           `json:"file"`
}

func describeKey(path string, k *signer.Key) (keyDocument, error) {
	id := k.ID()
	doc := keyDocument{Name: k.Name, Algorithm: k.Algorithm, ID: hex.EncodeToString(id[:]), Kept: "unencrypted", File: path}
	if p, ok := k.Program(); ok {
		doc.Kept, doc.Program = "program", &p
	} else if k.Encrypted() {
		doc.Kept = "encrypted"
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public)
	if err != nil {
		return doc, fmt.Errorf("cannot show key %s: %w", k.Name, err)
	}
	doc.Public = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	return doc, nil
}

// newKeyFile writes a new file that only its owner can read; it replaces none.
func newKeyFile(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.Failed, "cannot write key: %s exists already", path).Hint("choose another name with --out; keys are never overwritten")
	}
	if err != nil {
		return fmt.Errorf("cannot write key: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("cannot write key: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// made reports a key that was just written.
func made(s *cli.Screen, path string) error {
	k, err := readKey(path)
	if err != nil {
		return err
	}
	doc, err := describeKey(path, k)
	if err != nil {
		return err
	}
	if s.JSON {
		return s.Document("sealant.key-made/1", doc)
	}
	s.Printf("%s\n", path)
	s.Notef("%s %s key %s %s, %s\n", s.Good(), doc.Algorithm, doc.Name, s.Short(doc.ID), doc.Kept)
	return nil
}

func newKeysNew() *cobra.Command {
	var pass secret
	var role, out string
	var insecure bool
	cmd := &cobra.Command{
		Use:   "new NAME --for ROLE",
		Short: "make a software key",
		Long: `Makes a key and writes it to NAME.key, encrypted under a passphrase: Ed25519 for
a role of the catalog, ECDSA P-384 for the root of tickets.

  sealpub keys new alice --for targets
  sealpub keys new root --for ticket-root --out /media/stick/ticket-root.key
  sealpub keys new throwaway --for rollout --insecure-unencrypted`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			algorithm, ok := roles[role]
			if !ok {
				return fault.New(fault.Usage, "cannot make key: --for must be one of %s", roleNames())
			}
			if !signer.ValidName(args[0]) {
				return fault.New(fault.Usage, "cannot make key: %q can't be its name", args[0])
			}
			if out == "" {
				out = args[0] + ".key"
			}
			if _, err := os.Lstat(out); err == nil {
				return fault.New(fault.Failed, "cannot write key: %s exists already", out).Hint("choose another name with --out; keys are never overwritten")
			}
			var word []byte
			var err error
			if !insecure {
				if word, err = pass.choose(s, args[0]); err != nil {
					return err
				}
			}
			key, err := signer.New(rand.Reader, algorithm)
			if err != nil {
				return err
			}
			var text []byte
			if insecure {
				text, err = signer.Unencrypted(args[0], key)
			} else {
				text, err = signer.Encrypt(args[0], key, word)
			}
			if err != nil {
				return err
			}
			if err := newKeyFile(out, text); err != nil {
				return err
			}
			if insecure {
				s.Notef("%s whoever can read %s can sign with it: for development only\n", s.Warn(), out)
			}
			return made(s, out)
		},
	}
	cmd.Flags().StringVar(&role, "for", "", "what the key is for: "+roleNames())
	cmd.Flags().StringVarP(&out, "out", "o", "", "where to write it (default NAME.key)")
	cmd.Flags().BoolVar(&insecure, "insecure-unencrypted", false, "write the private key without a passphrase, for development")
	pass.flags(cmd)
	cobra.CheckErr(cmd.MarkFlagRequired("for"))
	return cmd
}

func newKeysAttach() *cobra.Command {
	var label, out string
	cmd := &cobra.Command{
		Use:   "attach NAME --key LABEL -- PROGRAM [ARGUMENT…]",
		Short: "write the key file of a key that lives in a program",
		Long: `Asks a program that holds keys (see the signer protocol in spec/keys.md) for its
public key LABEL, and writes a key file that says where the key lives. Commands
that sign with that file start the program themselves.

  sealpub keys attach ticket-root --key ticket-root -- sealant-signer-pkcs11 --module /usr/lib/softhsm/libsofthsm2.so --token vendor`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			s := cli.For(cmd)
			if out == "" {
				out = args[0] + ".key"
			}
			at := signer.Program{Command: args[1:], Key: label}
			public, err := publicOf(cmd, s, at)
			if err != nil {
				return err
			}
			text, err := signer.External(args[0], public, at)
			if err != nil {
				return err
			}
			if err := newKeyFile(out, text); err != nil {
				return err
			}
			return made(s, out)
		},
	}
	cmd.Flags().StringVar(&label, "key", "", "what the key is called in the program")
	cmd.Flags().StringVarP(&out, "out", "o", "", "where to write it (default NAME.key)")
	cobra.CheckErr(cmd.MarkFlagRequired("key"))
	return cmd
}

// publicOf asks a program for a public key.
func publicOf(cmd *cobra.Command, s *cli.Screen, at signer.Program) (crypto.PublicKey, error) {
	proc, err := program.Start(cmd.Context(), at.Command, s.Err)
	if err != nil {
		return nil, err
	}
	key, err := signer.NewClient(proc).Key(at.Key)
	if err = errors.Join(err, proc.Close()); err != nil {
		return nil, err
	}
	return key.Public(), nil
}

func newKeysList() *cobra.Command {
	return &cobra.Command{
		Use:   "list [FOLDER|FILE…]",
		Short: "list key files",
		Long: `Lists the key files (*.key) of a folder and the folders in it, the current one
if none is named. It needs no passphrase.

  sealpub keys list vendor/keys`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			if len(args) == 0 {
				args = []string{"."}
			}
			all := struct {
				Keys []keyDocument `json:"keys"`
			}{[]keyDocument{}}
			for _, arg := range args {
				files, err := keyFiles(arg)
				if err != nil {
					return fmt.Errorf("cannot list keys: %w", err)
				}
				for _, file := range files {
					k, err := readKey(file)
					if err != nil {
						return err
					}
					doc, err := describeKey(file, k)
					if err != nil {
						return err
					}
					all.Keys = append(all.Keys, doc)
				}
			}
			if s.JSON {
				return s.Document("sealant.keys/1", all)
			}
			if len(all.Keys) > 0 {
				s.Printf("%-16s %-10s  %-11s  %-13s  %s\n", "KEY", "ALGORITHM", "KEPT", "ID", "FILE")
			}
			for _, k := range all.Keys {
				kept := fmt.Sprintf("%-11s", k.Kept)
				if k.Kept == "unencrypted" {
					kept = s.Alarm(kept)
				}
				s.Printf("%-16s %-10s  %s  %s…%s  %s\n", k.Name, k.Algorithm, kept, k.ID[:6], k.ID[58:], k.File)
			}
			if len(all.Keys) == 0 {
				s.Notef("no key files\n")
			}
			return nil
		},
	}
}

// keyFiles returns a file, or the key files below a folder.
func keyFiles(path string) ([]string, error) {
	at, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !at.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.HasSuffix(file, ".key") {
			files = append(files, file)
		}
		return err
	})
	return files, err
}

func newKeysShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "show one key and its public part",
		Long: `Shows what a key file says, and the public key in PEM. It needs no passphrase.

  sealpub keys show alice.key
  sealpub keys show alice.key --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			k, err := readKey(args[0])
			if err != nil {
				return err
			}
			doc, err := describeKey(args[0], k)
			if err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.key-shown/1", doc)
			}
			s.Printf("%s\n", s.Strong(doc.Name))
			s.Printf("  algorithm %s\n  id        %s\n  kept      %s\n", doc.Algorithm, doc.ID, doc.Kept)
			if doc.Program != nil {
				s.Printf("  program   %s\n  key there %s\n", strings.Join(doc.Program.Command, " "), doc.Program.Key)
			}
			s.Printf("%s", doc.Public)
			return nil
		},
	}
}
