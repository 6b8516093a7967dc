package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/publish"
	"github.com/sealant-os/sealant/release"
)

// releaseFlags are the words of one release.
type releaseFlags struct {
	dir, baseline, textFile      string
	cryptexes, cves, credits, as []string
	prepare                      bool
	pass                         secret
	order                        publish.Order
}

func newRelease() *cobra.Command {
	var r releaseFlags
	cmd := &cobra.Command{
		Use:   "release --id SI-YEAR-NUMBER --cryptex NAME=OLD:NEW …",
		Short: "make, sign and publish an improvement",
		Long: `Makes an improvement of the baseline: verifies the images, compares them file by
file, makes patch and antipatch, applies both and compares every byte, signs and
publishes. Nothing is published unless all of it succeeds.

OLD is always the baseline's image: improvements are cumulative. A flaw that is
known to be exploited has a "!" after its number; words about it follow "=".

  sealpub release --dir vendor --id SI-2026-0007 --level 2 --previous SI-2026-0006 \
    --cryptex web=images/web.cryptex:images/web-b.cryptex \
    --cve 'CVE-2026-1101!=Web content could run code' --credit CVE-2026-1101=Finder \
    --severity critical --title 'Web content could run code'

A security fix changes as little as it can. Added or removed files, other modes,
exported symbols that are gone and versions that became others are findings;
the release is refused until each kind of them is acknowledged:
` + "  " + strings.Join(publish.Codes(), " ") + `

With fewer signatures than needed, or with --prepare, the release waits in
DIR/prepared/ID: others sign it with "sealpub sign", then "sealpub publish".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&r.dir, "dir", ".", "the vendor folder")
	f.StringVar(&r.order.ID, "id", "", "the improvement's id: SI-2026-0007")
	f.IntVar(&r.order.Level, "level", 0, "1 for (a), 2 for (b) (default: the next)")
	f.StringVar(&r.order.Previous, "previous", "", "the improvement before it")
	f.StringVar(&r.baseline, "baseline", "", "the baseline's document (default DIR/base.json)")
	f.StringArrayVar(&r.cryptexes, "cryptex", nil, "NAME=OLD:NEW, image files; once for each cryptex")
	f.StringArrayVar(&r.cves, "cve", nil, "CVE-…[!][=TEXT]: a flaw that this one fixes; ! if it is exploited")
	f.StringArrayVar(&r.credits, "credit", nil, "CVE-…=NAME: who found it")
	f.StringVar(&r.order.Severity, "severity", "", "low, medium, high or critical")
	f.StringVar(&r.order.Title, "title", "", "one line for people")
	f.StringVar(&r.order.Text, "text", "", "more for people")
	f.StringVar(&r.textFile, "text-file", "", "read the text from this file")
	f.StringArrayVar(&r.order.Acknowledge, "acknowledge", nil, "a kind of finding that is meant")
	f.BoolVar(&r.prepare, "prepare", false, "do not sign or publish yet")
	f.StringSliceVar(&r.as, "as", nil, "sign as these owners (default: all whose key opens)")
	r.pass.flags(cmd)
	for _, name := range []string{"id", "cryptex", "severity"} {
		_ = cmd.MarkFlagRequired(name)
	}
	cmd.MarkFlagsMutuallyExclusive("text", "text-file")
	cmd.AddCommand(newReleaseBaseline())
	return cmd
}

// parse fills the order from the flags.
func (r *releaseFlags) parse(v *publish.Vendor) error {
	for _, c := range r.cryptexes {
		name, files, _ := strings.Cut(c, "=")
		old, improved, ok := strings.Cut(files, ":")
		if !ok || name == "" || old == "" || improved == "" {
			return fault.New(fault.Usage, "cannot read --cryptex %q: it is not NAME=OLD:NEW", c)
		}
		for _, before := range r.order.Cryptexes {
			if before.Name == name {
				return fault.New(fault.Usage, "cryptex %q is named twice", name)
			}
		}
		r.order.Cryptexes = append(r.order.Cryptexes, publish.Pair{Name: name, Old: old, New: improved})
	}
	credits := map[string]string{}
	for _, c := range r.credits {
		id, who, ok := strings.Cut(c, "=")
		if !ok {
			return fault.New(fault.Usage, "cannot read --credit %q: it is not CVE-…=NAME", c)
		}
		credits[id] = who
	}
	for _, c := range r.cves {
		id, text, _ := strings.Cut(c, "=")
		id, exploited := strings.CutSuffix(id, "!")
		if err := release.CheckCVE(id); err != nil {
			return fault.New(fault.Usage, "cannot read --cve %q: %w", c, err)
		}
		r.order.CVEs = append(r.order.CVEs, release.CVE{ID: id, Text: text, Credit: credits[id], Exploited: exploited})
		delete(credits, id)
	}
	for id := range credits {
		return fault.New(fault.Usage, "--credit names %s, which no --cve does", id)
	}
	if r.textFile != "" {
		data, err := os.ReadFile(r.textFile)
		if err != nil {
			return fault.New(fault.Usage, "cannot read the text: %w", err)
		}
		r.order.Text = strings.TrimSpace(string(data))
	}
	b, err := v.Baseline(r.baseline)
	if err != nil {
		return err
	}
	r.order.Baseline = b.Digest()
	if r.order.Title == "" {
		r.order.Title = "Background Security Improvement " + r.order.ID
	}
	return nil
}

func (r *releaseFlags) run(cmd *cobra.Command) error {
	s := cli.For(cmd)
	v, err := publish.Open(r.dir)
	if err != nil {
		return err
	}
	if err := r.parse(v); err != nil {
		return err
	}
	steps := &steps{screen: s}
	account, bundle, err := v.Prepare(cmd.Context(), r.order, steps.set)
	steps.end()
	if errors.Is(err, publish.ErrFindings) {
		if !s.JSON {
			printAccount(s, account, r.order.Acknowledge)
		}
		return err
	}
	if err != nil {
		return err
	}
	if !s.JSON {
		printAccount(s, account, r.order.Acknowledge)
	}
	var p publication
	if !r.prepare {
		if p, err = signAndPublish(cmd, v, bundle, r.as, &r.pass); err != nil {
			return err
		}
	} else {
		p.describe(v, bundle)
	}
	if s.JSON {
		return s.Document("sealant.release-account/1", accountDocument(account, r.order.Acknowledge, p))
	}
	printPublication(s, v, bundle, p)
	return nil
}

func newReleaseBaseline() *cobra.Command {
	var dir, osVersion string
	var pass secret
	var as []string
	var prepare bool
	cmd := &cobra.Command{
		Use:   "baseline IMAGE…",
		Short: "publish the images that an OS update installs",
		Long: `Verifies the images, publishes them as a baseline and writes DIR/base.json, which
the OS image must contain as /usr/lib/sealant/base.json. Improvements made from
now on are improvements of this baseline.

  sealpub release baseline --dir vendor images/os.cryptex images/web.cryptex`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			v, err := publish.Open(dir)
			if err != nil {
				return err
			}
			steps := &steps{screen: s}
			b, bundle, err := v.PrepareBaseline(cmd.Context(), args, osVersion, steps.set)
			steps.end()
			if err != nil {
				return err
			}
			p := publication{Published: bundle == nil, Shown: bundle == nil}
			switch {
			case bundle == nil:
			case prepare:
				p.describe(v, bundle)
			default:
				if p, err = signAndPublish(cmd, v, bundle, as, &pass); err != nil {
					return err
				}
			}
			if s.JSON {
				return s.Document("sealant.baseline-published/1", struct {
					Product   string          `json:"product"`
					OSVersion string          `json:"os_version"`
					Digest    release.Digest  `json:"digest"`
					Cryptexes []release.Image `json:"cryptexes"`
					publication
				}{b.Product, b.OSVersion, b.Digest(), b.Cryptexes, p})
			}
			s.Printf("baseline %s %s  %s\n", b.Product, b.OSVersion, s.Short(b.Digest().String()))
			for _, c := range b.Cryptexes {
				s.Printf("  %-12s %-4s %10s  seal %s %s\n", c.Name, c.Subtype, cli.Bytes(c.Size), s.Short(c.Seal.Root.String()), s.Good())
			}
			if bundle == nil {
				s.Printf("%s the catalog has it already\n", s.Good())
			} else {
				printPublication(s, v, bundle, p)
			}
			s.Printf("base.json is in %s: put it into the OS image as /usr/lib/sealant/base.json\n", v.Dir)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", ".", "the vendor folder")
	f.StringVar(&osVersion, "os-version", "", "the OS version that installs it (default: the folder's)")
	f.BoolVar(&prepare, "prepare", false, "do not sign or publish yet")
	f.StringSliceVar(&as, "as", nil, "sign as these owners (default: all whose key opens)")
	pass.flags(cmd)
	return cmd
}
