package main

import (
	"bytes"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/ticket"
)

// maxRootFile bounds what --ticket-root reads, in bytes.
const maxRootFile = 64 << 10

// wanted is what a ticket is compared with when the command line says so, in
// place of this device.
type wanted struct {
	root      string
	device    string
	product   string
	baseline  string
	nonce     string
	release   string
	cryptexes []string
	revoked   []string
	since     string
}

// wantedFlags are the flags of wanted. With any of them the device is not
// looked at.
var wantedFlags = []string{"ticket-root", "device", "product", "baseline", "nonce", "release", "cryptex", "revoked", "since"}

func (w *wanted) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.root, "ticket-root", "", "certificate that must have issued the ticket's leaf (PEM or DER)")
	f.StringVar(&w.device, "device", "", "device id that it must be for (64 hexadecimal digits)")
	f.StringVar(&w.product, "product", "", "product that it must be for")
	f.StringVar(&w.baseline, "baseline", "", "baseline that it must be for: its SHA-384, or its document")
	f.StringVar(&w.nonce, "nonce", "", "nonce that it must bear (96 hexadecimal digits); none for a baseline's ticket")
	f.StringVar(&w.release, "release", "", "release that it must be for; none for a baseline's ticket")
	f.StringArrayVar(&w.cryptexes, "cryptex", nil, "member of the set: \"NAME SUBTYPE IMAGE SEAL ROOT TRUST-CACHE\"; give all of them")
	f.StringArrayVar(&w.revoked, "revoked", nil, "leaf that must not have signed it (SHA-256 of its public key)")
	f.StringVar(&w.since, "since", "", "moment by which its leaf must not have ended (2026-11-23T18:00:00Z)")
}

// given tells whether the command line says what to compare a ticket with.
func (w *wanted) given(cmd *cobra.Command) bool {
	for _, name := range wantedFlags {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// judge decodes a ticket and checks everything that was given.
func (w *wanted) judge(cmd *cobra.Command, der []byte) (device.Verified, error) {
	v := device.Verified{Checks: []device.Finding{}, Enforcement: "none"}
	root, err := w.pinned(rootOf(cmd))
	if err != nil {
		return v, err
	}
	want, err := w.expect()
	if err != nil {
		return v, err
	}
	t, err := ticket.Parse(der)
	if err != nil {
		return v, err
	}
	v.Ticket = t.Describe()
	for _, c := range t.Compare(root, want) {
		f := device.Finding{What: c.What, OK: c.Err == nil, Level: "ok", Text: c.Text}
		switch {
		case c.Err != nil:
			f.Level, f.Text, f.Code = "bad", c.Err.Error(), fault.Ticket.String()
		case !c.Compared:
			f.Level, f.Code = "warn", "not-compared"
		}
		v.Checks = append(v.Checks, f)
	}
	_, bad := v.Kind()
	v.OK = !bad
	return v, nil
}

// pinned reads the root: the given one, else the one of the operating system.
func (w *wanted) pinned(system string) (*x509.Certificate, error) {
	file := w.root
	if file == "" {
		file = filepath.Join(system, "usr/lib/sealant/ticket-root.pem")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the ticket root: %w", err).Hint("--ticket-root FILE says which")
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRootFile))
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the ticket root: %w", err)
	}
	if block, _ := pem.Decode(text); block == nil {
		text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: text})
	}
	root, err := ticket.ParseRoot(text)
	if err != nil {
		return nil, fault.New(fault.Ticket, "%s: %w", file, err)
	}
	return root, nil
}

// expect reads the flags.
func (w *wanted) expect() (e ticket.Known, err error) {
	e.Product = w.product
	unhex := func(flag, text string, dst []byte) {
		b, bad := hex.DecodeString(text)
		if err == nil && (bad != nil || len(b) != len(dst)) {
			err = fault.New(fault.Usage, "cannot use --%s: %q is not %d hexadecimal digits", flag, text, 2*len(dst))
		}
		copy(dst, b)
	}
	if w.device != "" {
		unhex("device", w.device, e.Device[:])
	}
	if text, bad := os.ReadFile(w.baseline); w.baseline != "" && bad == nil {
		e.Baseline = sha512.Sum384(text)
	} else if w.baseline != "" {
		unhex("baseline", w.baseline, e.Baseline[:])
	}
	e.OfBaseline = w.nonce == "none" || w.release == "none"
	switch {
	case e.OfBaseline && (w.nonce != "" && w.nonce != "none" || w.release != "" && w.release != "none"):
		return e, fault.New(fault.Usage, "cannot use --nonce and --release: a baseline's ticket has neither, any other has both")
	case e.OfBaseline:
	default:
		e.Release = w.release
		if w.nonce != "" {
			unhex("nonce", w.nonce, e.Nonce[:])
		}
	}
	for _, text := range w.cryptexes {
		c, bad := parseCryptex(text)
		if err == nil && bad != nil {
			err = fault.New(fault.Usage, "cannot use --cryptex: %w", bad)
		}
		e.Cryptexes = append(e.Cryptexes, c)
	}
	for _, text := range w.revoked {
		var id [32]byte
		unhex("revoked", text, id[:])
		e.Revoked = append(e.Revoked, id)
	}
	if w.since != "" {
		var bad error
		if e.Since, bad = time.Parse(time.RFC3339, w.since); err == nil && bad != nil {
			err = fault.New(fault.Usage, "cannot use --since: %w", bad)
		}
	}
	return e, err
}

// parseCryptex reads one member of a set as the vectors write it.
func parseCryptex(text string) (c ticket.Cryptex, err error) {
	f := strings.Fields(text)
	if len(f) != 6 {
		return c, errors.New("it is NAME SUBTYPE IMAGE SEAL ROOT TRUST-CACHE")
	}
	subtype, err := strconv.ParseUint(f[1], 10, 8)
	if err != nil {
		return c, fmt.Errorf("subtype: %w", err)
	}
	c.Name, c.Subtype = f[0], uint8(subtype)
	for i, dst := range [][]byte{c.Image[:], c.Seal[:], c.Root[:], c.TrustCache[:]} {
		b, err := hex.DecodeString(f[2+i])
		if err != nil || len(b) != len(dst) {
			return c, fmt.Errorf("%.20q is not %d hexadecimal digits", f[2+i], 2*len(dst))
		}
		copy(dst, b)
	}
	return c, nil
}

// readTicket reads a ticket's file; "-" is standard input. What is too long for
// a ticket is no ticket.
func readTicket(cmd *cobra.Command, file string) ([]byte, error) {
	in := io.Reader(cmd.InOrStdin())
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fault.New(fault.Usage, "cannot read the ticket: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, ticket.MaxSize+1))
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the ticket: %w", err)
	}
	if len(bytes.TrimSpace(data)) == 0 || len(data) > ticket.MaxSize {
		return nil, fault.New(fault.Ticket, "cannot read the ticket: %s is empty or has more than %d bytes", file, ticket.MaxSize)
	}
	return data, nil
}

// exitVerified prints what was found and turns it into an exit code.
func exitVerified(cmd *cobra.Command, v device.Verified) error {
	s := cli.For(cmd)
	if s.JSON {
		if err := s.Document("sealant.verify/1", v); err != nil {
			return err
		}
	} else {
		printVerified(s, v)
	}
	if kind, bad := v.Kind(); bad {
		return cli.Exit(kind)
	}
	return nil
}
