package main

import (
	"crypto"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/publish"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// publication is the part of a document that says how far a publication came.
type publication struct {
	Bundle    string   `json:"bundle,omitempty"` // where it waits for signatures
	Signed    []string `json:"signed"`           // owners
	Needed    int      `json:"needed"`
	Owners    int      `json:"owners"`
	Published bool     `json:"published"`
	Shown     bool     `json:"shown"` // devices can see it
	Version   int64    `json:"version,omitempty"`
}

// describe takes the signatures from a bundle.
func (p *publication) describe(v *publish.Vendor, b *publish.Bundle) {
	s := b.Signed()
	p.Signed = []string{}
	for _, id := range s.By {
		p.Signed = append(p.Signed, v.Owner(id))
	}
	p.Needed, p.Owners = s.Threshold, s.Keys
	if !p.Published {
		p.Bundle = v.BundlePath(b.Name)
	}
}

// signAndPublish signs with the keys at hand and publishes if that is enough.
func signAndPublish(cmd *cobra.Command, v *publish.Vendor, b *publish.Bundle, as []string, pass *secret) (publication, error) {
	var p publication
	open, done := opener(cmd, pass, len(as) > 0)
	defer done()
	signers, err := v.Signers(as, open)
	if err != nil {
		return p, err
	}
	if _, err := b.Sign(signers...); err != nil {
		return p, err
	}
	if err := b.Write(v.BundlePath(b.Name)); err != nil {
		return p, err
	}
	if b.Signed().Enough() {
		done, err := v.Publish(b)
		if err != nil {
			return p, err
		}
		p.Published, p.Shown, p.Version = true, done.Shown, done.Version
	}
	p.describe(v, b)
	return p, nil
}

// opener opens keys, whatever sort they are. Unless a key was asked for by
// name, one whose passphrase nobody gives is left out. done ends the programs
// that keys live in.
func opener(cmd *cobra.Command, pass *secret, named bool) (open publish.Opener, done func()) {
	s := cli.For(cmd)
	var ends []func() error
	open = func(file string) (crypto.Signer, error) {
		k, err := readKey(file)
		if err != nil {
			return nil, err
		}
		if k.Encrypted() && !named {
			given, err := pass.given()
			if err != nil {
				return nil, err
			}
			if given == nil {
				word, err := s.Secret("Passphrase of " + k.Name + " (empty: without it)")
				if err != nil || len(word) == 0 {
					s.Notef("%s %s does not sign: no passphrase\n", s.Empty(), k.Name)
					return nil, nil
				}
				return k.Unlock(word)
			}
		}
		key, end, err := openKey(cmd.Context(), s, file, pass)
		if err == nil {
			ends = append(ends, end)
		}
		return key, err
	}
	return open, func() {
		for _, end := range ends {
			_ = end() // what it signed was verified already
		}
	}
}

// printPublication says how far it came and what is next.
func printPublication(s *cli.Screen, v *publish.Vendor, b *publish.Bundle, p publication) {
	s.Printf("signed")
	for _, owner := range p.Signed {
		s.Printf(" %s %s", owner, s.Good())
	}
	s.Printf(" (%d of %d, %d needed)\n", len(p.Signed), p.Owners, p.Needed)
	switch {
	case !p.Published && len(p.Signed) >= p.Needed:
		s.Printf("%s %s waits in %s\nNext: sealpub publish %s --dir %s\n", s.Empty(), b.Name, p.Bundle, b.Name, v.Dir)
	case !p.Published:
		s.Printf("%s %s waits for %d more: %s\nNext: sealpub sign %s --key KEYFILE, on any machine; then sealpub publish %s --dir %s\n",
			s.Empty(), b.Name, p.Needed-len(p.Signed), p.Bundle, p.Bundle, b.Name, v.Dir)
	case !p.Shown:
		s.Printf("%s published as version %d; devices see it when the server has signed the next snapshot\n", s.Good(), p.Version)
	default:
		s.Printf("%s published as version %d\n", s.Good(), p.Version)
	}
	if p.Published && b.Manifest != nil {
		s.Printf("Next: sealsrv rollout start %s      Undo: sealsrv recall %s\n", b.Manifest.ID, b.Manifest.ID)
	}
}

func newSign() *cobra.Command {
	var keyFiles []string
	var rootFile, out string
	var pass secret
	var yes bool
	cmd := &cobra.Command{
		Use:   "sign BUNDLE --key KEYFILE",
		Short: "add a signature to a prepared release, recall, or change of keys",
		Long: `Shows what a prepared release would publish, or what a change of keys or a recall
would do, and signs it after you typed its name.
It needs no network, no vendor folder and nothing but the bundle and the key: take
the bundle to the machine where the key is, and bring it back.

  sealpub sign bundle.json --key targets-bob.key --root root.json

With --root the bundle is refused unless it builds on that very root metadata:
the one that the OS image pins, or a later one that you know.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			if isCeremony(args[0]) {
				return signCeremony(cmd, args[0], out, rootFile, keyFiles, &pass, yes)
			}
			b, err := publish.ReadBundle(args[0])
			if err != nil {
				return err
			}
			if rootFile != "" {
				if err := sameRoot(b.Name, b.BuildsOn, rootFile); err != nil {
					return err
				}
			}
			signers, done, err := openAll(cmd, keyFiles, &pass)
			defer done()
			if err != nil {
				return err
			}
			if !s.JSON {
				printBundle(s, b)
			}
			if err := s.Confirm(b.Name, yes); err != nil {
				return err
			}
			by, err := b.Sign(signers...)
			if err != nil {
				return err
			}
			if len(by) == 0 {
				return fault.New(fault.Refused, "cannot sign %s: the key is none of the owners'", b.Name)
			}
			if out == "" {
				out = args[0]
			}
			if err := b.Write(out); err != nil {
				return err
			}
			signed := b.Signed()
			if s.JSON {
				return s.Document("sealant.signed/1", struct {
					Name   string `json:"name"`
					Bundle string `json:"bundle"`
					Valid  int    `json:"valid"`
					Needed int    `json:"needed"`
					Keys   int    `json:"keys"`
				}{b.Name, out, signed.Valid, signed.Threshold, signed.Keys})
			}
			s.Printf("%s signed: %d of %d, %d needed\n", s.Good(), signed.Valid, signed.Keys, signed.Threshold)
			if signed.Enough() {
				s.Printf("Next, where it was prepared: sealpub publish %s --dir VENDOR\n", out)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&keyFiles, "key", nil, "a key file to sign with")
	f.StringVar(&rootFile, "root", "", "refuse a bundle that builds on another root than this")
	f.StringVarP(&out, "output", "o", "", "write the signed bundle here (default: in place)")
	f.BoolVar(&yes, "yes", false, "do not ask")
	pass.flags(cmd)
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

// openAll opens the keys of files, each of which was asked for.
func openAll(cmd *cobra.Command, files []string, pass *secret) (signers []crypto.Signer, done func(), err error) {
	open, done := opener(cmd, pass, true)
	for _, file := range files {
		key, err := open(file)
		if err != nil {
			return nil, done, err
		}
		signers = append(signers, key)
	}
	return signers, done, nil
}

// sameRoot says whether what is to be signed builds on the root metadata in a
// file.
func sameRoot(name string, buildsOn func(root []byte) (bool, error), file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fault.New(fault.Usage, "cannot read the root metadata: %w", err)
	}
	same, err := buildsOn(data)
	if err != nil {
		return err
	}
	if !same {
		return fault.New(fault.Refused, "cannot sign %s: it builds on another root than %s", name, file).
			Hint("it may be newer than yours, or a forgery: ask the other owners")
	}
	return nil
}

// printBundle shows a signer what the signature would publish.
func printBundle(s *cli.Screen, b *publish.Bundle) {
	s.Printf("%s\n", s.Strong(b.Name))
	if m := b.Manifest; m != nil {
		s.Printf("  %s %s %s  %s, severity %s\n", m.Product, m.Name(), s.Dash(), m.Title, m.Severity)
		for _, c := range m.New() {
			word := ""
			if c.Exploited {
				word = " (exploited)"
			}
			s.Printf("  fixes %s%s %s\n", c.ID, word, c.Text)
		}
		for _, c := range m.Cryptexes {
			s.Printf("  %s: %d files changed; image %s%s%s\n", c.Name, c.Changed, s.Short(c.From.Digest.String()), s.Arrow(), s.Short(c.To.Digest.String()))
			for _, f := range first(c.Files, shownFiles) {
				s.Printf("    %-8s %s\n", f.Change, f.Path)
			}
		}
	}
	added, removed := b.Changes()
	for _, t := range added {
		dir, name := filepath.Split(t.Path)
		if len(name) >= 96 {
			name = s.Short(name[:96]) + name[96:]
		}
		s.Printf("  + %-60s %10s\n", dir+name, cli.Bytes(t.Length))
	}
	for _, name := range removed {
		s.Printf("  %s takes away %s\n", s.Warn(), name)
	}
	signed := b.Signed()
	s.Printf("  signed by %d of %d owners, %d needed\n", signed.Valid, signed.Keys, signed.Threshold)
}

func newPublish() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "publish BUNDLE|ID",
		Short: "publish what was prepared and enough people have signed",
		Long: `Puts a release that was prepared in this folder into the catalog, if enough owners
have signed it. Name the bundle that came back from the last signer, or the id if
the folder's own bundle has all signatures. A change of keys or expiries, prepared
by sealpub root, and a recall that two people sign are published the same way.

  sealpub publish root-v2 --dir vendor
  sealpub publish SI-2026-0007 --dir vendor
  sealpub publish /media/stick/bundle.json --dir vendor`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			v, err := publish.Open(dir)
			if err != nil {
				return err
			}
			name := args[0]
			if catalog.CheckCeremonyName(name) == nil {
				name = v.CeremonyPath(name)
			}
			if isCeremony(name) {
				return publishCeremony(cmd, v, name)
			}
			if release.CheckID(name) == nil || (!strings.Contains(name, "/") && strings.HasPrefix(name, "baseline-")) {
				name = v.BundlePath(name)
			}
			b, err := publish.ReadBundle(name)
			if err != nil {
				return err
			}
			done, err := v.Publish(b)
			if err != nil {
				return err
			}
			p := publication{Published: true, Shown: done.Shown, Version: done.Version}
			p.describe(v, b)
			if s.JSON {
				return s.Document("sealant.published/1", struct {
					Name string `json:"name"`
					publication
				}{b.Name, p})
			}
			printPublication(s, v, b, p)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the vendor folder")
	return cmd
}

func newWithdraw() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "withdraw ID",
		Short: "give up a prepared release",
		Long: `Deletes a release that was prepared but not published. A published one can't be
withdrawn, since devices may have it: recall it at the server.

  sealpub withdraw SI-2026-0007 --dir vendor`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			v, err := publish.Open(dir)
			if err != nil {
				return err
			}
			if err := v.Withdraw(args[0]); err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.withdrawn/1", map[string]string{"name": args[0]})
			}
			s.Printf("%s %s is given up; nothing of it was published\n", s.Good(), args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the vendor folder")
	return cmd
}
