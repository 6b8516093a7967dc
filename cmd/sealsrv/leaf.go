package main

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/trust/signer"
	"github.com/sealant-os/sealant/trust/ticket"
)

func newLeaf() *cobra.Command {
	cmd := &cobra.Command{
		Use: "leaf", Short: "the short-lived key that signs tickets",
		Long: `The signing service signs with a leaf that lives for hours, under a root that
stays offline. A new leaf takes force as soon as its file stands in place of the
old one; the server need not be restarted.`,
	}
	cmd.AddCommand(newLeafNew(), newLeafShow(), newLeafRevoke())
	return cmd
}

// The lives that a leaf may have.
const (
	minLeaf = 10 * time.Minute
	maxLeaf = 90 * 24 * time.Hour
)

func newLeafNew() *cobra.Command {
	var rootFile, keyFile, leafKey, out, product, baseline string
	var life time.Duration
	cmd := &cobra.Command{
		Use: "new", Short: "issue a leaf with the ticket root", Args: cobra.NoArgs,
		Long: `New makes a fresh P-384 key and has the ticket root certify it. The result is one
PEM file with certificate and private key, to be brought to the server. With the
development folder (--dir) all paths are known; elsewhere name the root's key, on
the machine where it is kept.

A leaf can be limited to a product and to one baseline: then a stolen leaf signs
nothing else.

With --leaf-key the leaf is for a key that exists already, in a token of the server
for example: then the result is the certificate alone, and the server's configuration
names the key file (tickets.leaf_keys). Of the key file only the public part is used.`,
		Example: `  sealsrv leaf new --root ticket-root.pem --key ticket-root.key --out leaf.pem --lifetime 24h
  sealsrv leaf new --root ticket-root.pem --key ticket-root.key --leaf-key leaf-a.key --out leaf.pem
  sealsrv leaf new --dir vendor`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir, _ := cmd.Flags().GetString("dir"); dir != "" {
				c, err := configOf(cmd)
				if err != nil {
					return err
				}
				for to, value := range map[*string]string{&rootFile: c.Tickets.Root, &out: c.Tickets.Leaf, &keyFile: filepath.Join(dir, "keys", "ticket-root.key")} {
					if *to == "" {
						*to = value
					}
				}
			}
			for name, value := range map[string]string{"root": rootFile, "key": keyFile, "out": out} {
				if value == "" {
					return fault.New(fault.Usage, "--%s is missing", name)
				}
			}
			if life < minLeaf || life > maxLeaf {
				return fault.New(fault.Usage, "a leaf can't live %s; from %s to %s are possible", life, minLeaf, maxLeaf)
			}
			limits := ticket.Limits{Product: product}
			if baseline != "" {
				d, err := release.ParseDigest(baseline)
				if err != nil {
					return fault.New(fault.Usage, "cannot read the baseline's digest: %w", err)
				}
				limits.Baseline = d
			}
			text, err := readSmall(rootFile)
			if err != nil {
				return fmt.Errorf("cannot read the ticket root: %w", err)
			}
			root, err := ticket.ParseRoot(text)
			if err != nil {
				return err
			}
			key, err := openKey(cmd, keyFile)
			if err != nil {
				return err
			}
			fresh, err := newLeafKey(leafKey)
			if err != nil {
				return err
			}
			if err := issueLeaf(out, root, key, fresh, limits, life); err != nil {
				return err
			}
			return showLeaf(cmd, out, root)
		},
	}
	f := cmd.Flags()
	f.StringVar(&rootFile, "root", "", "certificate of the ticket root, PEM")
	f.StringVar(&keyFile, "key", "", "key file of the ticket root")
	f.StringVar(&leafKey, "leaf-key", "", "key file of the leaf itself, where the key lies elsewhere")
	f.StringVarP(&out, "out", "o", "", "leaf file to write")
	f.DurationVar(&life, "lifetime", 24*time.Hour, "how long the leaf signs")
	f.StringVar(&product, "product", "", "the only product that it may sign for")
	f.StringVar(&baseline, "baseline", "", "the only baseline that it may sign for: a digest")
	passphraseFlag(cmd)
	return cmd
}

func newLeafShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "what leaf is in place, and until when", Args: cobra.NoArgs,
		Example: "  sealsrv leaf show --dir vendor",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			root, err := openTicketRoot(c)
			if err != nil {
				return err
			}
			return showLeaf(cmd, c.Tickets.Leaf, root)
		},
	}
}

func showLeaf(cmd *cobra.Command, path string, root *x509.Certificate) error {
	leaf, err := presentLeaf(path, root)
	if err != nil {
		return err
	}
	screen := cli.For(cmd)
	id := ticket.LeafID(leaf)
	if screen.JSON {
		return screen.Document("sealant.leaf/1", map[string]any{
			"file": path, "id": hex.EncodeToString(id[:]), "name": leaf.Subject.CommonName,
			"from": leaf.NotBefore.UTC(), "until": leaf.NotAfter.UTC(),
		})
	}
	screen.Printf("%s  %x  until %s\n", leaf.Subject.CommonName, id[:8], stamp(screen, leaf.NotAfter))
	return nil
}

// presentLeaf is the certificate in a leaf file that can be used.
func presentLeaf(path string, root *x509.Certificate) (*x509.Certificate, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the leaf: %w", err)
	}
	if block, _ := pem.Decode(text); block == nil {
		return nil, errors.New("cannot read the leaf: it is not PEM")
	}
	leaf, err := signing.ParseLeafOf(text, root, func(public crypto.PublicKey) (crypto.Signer, error) { return elsewhere{public}, nil })
	if err != nil {
		return nil, err
	}
	return leaf.Certificate(), nil
}

// elsewhere is a key that is not at hand.
type elsewhere struct{ public crypto.PublicKey }

// Public implements crypto.Signer.
func (k elsewhere) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer.
func (k elsewhere) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the leaf's key is not at hand")
}

// newLeafKey makes a fresh key for a leaf, or takes the public part of a key
// file's.
func newLeafKey(file string) (crypto.Signer, error) {
	if file == "" {
		return signer.New(rand.Reader, signer.P384)
	}
	text, err := readSmall(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the leaf's key: %w", err)
	}
	k, err := signer.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return elsewhere{k.Public}, nil
}

// issueLeaf makes a leaf and puts its file in place at once.
func issueLeaf(path string, root *x509.Certificate, rootKey, key crypto.Signer, limits ticket.Limits, life time.Duration) error {
	now := time.Now()
	cert, err := ticket.IssueLeaf(rand.Reader, root, rootKey, key.Public(), limits, now.Add(-time.Minute), now.Add(life))
	if err != nil {
		return err
	}
	if _, ok := key.(elsewhere); ok {
		key = nil
	}
	text, err := signing.FormatLeaf(cert, key)
	if err != nil {
		return err
	}
	if err := writeSecret(path, text); err != nil {
		return fmt.Errorf("cannot write the leaf: %w", err)
	}
	return nil
}

// writeSecret makes a file durable that only its owner can read, whole and in
// place of an older one.
func writeSecret(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
