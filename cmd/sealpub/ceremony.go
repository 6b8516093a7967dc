package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/publish"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// isCeremony reports whether a file says that it is a ceremony; what can't be
// read is none.
func isCeremony(file string) bool {
	data, err := readSmall(file, catalog.MaxCeremony)
	if err != nil {
		return false
	}
	var f struct {
		Schema string `json:"schema"`
	}
	return json.Unmarshal(data, &f) == nil && strings.HasPrefix(f.Schema, "sealant.ceremony/")
}

// stepDocument is one role's part of a ceremony.
type stepDocument struct {
	Role    string      `json:"role"`
	Version int64       `json:"version"`
	Expires time.Time   `json:"expires"`
	Keys    []keyChange `json:"keys"`
	Signed  []string    `json:"signed"` // keys
	Needed  int         `json:"needed"`
	Owners  int         `json:"owners"`
}

type keyChange struct {
	Role      string   `json:"role"`
	Added     []string `json:"added"`
	Removed   []string `json:"removed"`
	Threshold int      `json:"threshold"`
}

// ceremonyDocument says what a ceremony does and how far it came.
type ceremonyDocument struct {
	Name      string         `json:"name"`
	File      string         `json:"file,omitempty"` // where it waits for signatures
	Steps     []stepDocument `json:"steps"`
	Published bool           `json:"published"`
	Shown     bool           `json:"shown"` // devices can see it
}

// nameOf names a key, by its id where nobody knows more.
func nameOf(names map[string]string, id string) string {
	if n := names[id]; n != "" {
		return n
	}
	return fmt.Sprintf("%.12s", id)
}

func namesOf(names map[string]string, ids []string) []string {
	all := []string{}
	for _, id := range ids {
		all = append(all, nameOf(names, id))
	}
	return all
}

func describeCeremony(c *catalog.Ceremony, names map[string]string) ceremonyDocument {
	d := ceremonyDocument{Name: c.Name}
	for _, s := range c.Steps() {
		step := stepDocument{
			Role: s.Role, Version: s.Version, Expires: s.Expires.UTC(), Keys: []keyChange{},
			Signed: namesOf(names, s.Signed.By), Needed: s.Signed.Threshold, Owners: s.Signed.Keys,
		}
		for _, k := range s.Keys {
			step.Keys = append(step.Keys, keyChange{k.Role, namesOf(names, k.Added), namesOf(names, k.Removed), k.After})
		}
		d.Steps = append(d.Steps, step)
	}
	return d
}

// printCeremony shows what signatures would make true.
func printCeremony(s *cli.Screen, c *catalog.Ceremony, names map[string]string) {
	s.Printf("%s\n", s.Strong(c.Name))
	for _, step := range c.Steps() {
		s.Printf("  %s version %d, good until %s\n", step.Role, step.Version, step.Expires.UTC().Format(time.DateOnly))
		for _, k := range step.Keys {
			for _, id := range k.Added {
				s.Printf("    + %s may sign %s\n", nameOf(names, id), k.Role)
			}
			for _, id := range k.Removed {
				s.Printf("    %s %s may no longer sign %s\n", s.Warn(), nameOf(names, id), k.Role)
			}
			if k.Before != k.After {
				s.Printf("    %s needs %s, was %d\n", k.Role, plural(k.After, "signature"), k.Before)
			}
		}
		for _, t := range step.Added {
			s.Printf("    + %s %s\n", t.Path, cli.Bytes(t.Length))
		}
		for _, name := range step.Removed {
			s.Printf("    %s takes away %s\n", s.Warn(), name)
		}
	}
	printList(s, c)
}

// printList shows the list that is signed, as far as it is one that people sign.
func printList(s *cli.Screen, c *catalog.Ceremony) {
	if c.List() == nil {
		return
	}
	if l, err := release.ParseRecallList(c.List()); err == nil {
		for _, e := range l.Entries {
			to := e.To
			if to == "" {
				to = "the baseline"
			}
			s.Printf("    recalled: %s %s %s, %s: %s\n", e.Release, s.Arrow(), to, e.Date.UTC().Format(time.DateOnly), e.Reason)
		}
		for _, e := range l.Leaves {
			s.Printf("    revoked leaf: %.16x%s, %s: %s\n", e.ID, s.Ellipsis(), e.Date.UTC().Format(time.DateOnly), e.Reason)
		}
		return
	}
	if l, err := release.ParseAdviceList(c.List()); err == nil {
		for _, e := range l.Entries {
			s.Printf("    advice: %s may harm %s\n", e.Release, e.App)
		}
	}
}

// printSigned says how far each step came.
func printSigned(s *cli.Screen, c *catalog.Ceremony, names map[string]string) {
	for _, step := range c.Steps() {
		s.Printf("  %-8s signed", step.Role)
		for _, id := range step.Signed.By {
			s.Printf(" %s %s", nameOf(names, id), s.Good())
		}
		s.Printf(" (%d of %d, %d needed)\n", step.Signed.Valid, step.Signed.Keys, step.Signed.Threshold)
	}
}

func signCeremony(cmd *cobra.Command, file, out, rootFile string, keyFiles []string, pass *secret, yes bool) error {
	s := cli.For(cmd)
	c, err := publish.ReadCeremony(file)
	if err != nil {
		return err
	}
	if rootFile != "" {
		if err := sameRoot(c.Name, c.BuildsOn, rootFile); err != nil {
			return err
		}
	}
	signers, done, err := openAll(cmd, keyFiles, pass)
	defer done()
	if err != nil {
		return err
	}
	if !s.JSON {
		printCeremony(s, c, nil)
	}
	if err := s.Confirm(c.Name, yes); err != nil {
		return err
	}
	by, err := c.Sign(signers...)
	if err != nil {
		return err
	}
	if len(by) == 0 {
		return fault.New(fault.Refused, "cannot sign %s: the key is none of those that count for it", c.Name)
	}
	if out == "" {
		out = file
	}
	if err := publish.WriteCeremony(out, c); err != nil {
		return err
	}
	if s.JSON {
		d := describeCeremony(c, nil)
		d.File = out
		return s.Document("sealant.ceremony-signed/1", d)
	}
	s.Printf("%s signed\n", s.Good())
	printSigned(s, c, nil)
	if c.Enough() {
		s.Printf("Next, where it was prepared: sealpub publish %s --dir VENDOR\n", out)
	}
	return nil
}

func publishCeremony(cmd *cobra.Command, v *publish.Vendor, file string) error {
	c, err := publish.ReadCeremony(file)
	if err != nil {
		return err
	}
	p, err := v.Perform(c)
	if err != nil {
		return err
	}
	return finishCeremony(cmd, v, c, &p)
}

// finishCeremony says how far a ceremony came and what is next; p is nil if it
// is not published.
func finishCeremony(cmd *cobra.Command, v *publish.Vendor, c *catalog.Ceremony, p *publish.Published) error {
	s := cli.For(cmd)
	names, err := v.KeyNames()
	if err != nil {
		return err
	}
	file := v.CeremonyPath(c.Name)
	if s.JSON {
		d := describeCeremony(c, names)
		if d.Published = p != nil; d.Published {
			d.Shown = p.Shown
		} else {
			d.File = file
		}
		return s.Document("sealant.ceremony/1", d)
	}
	printCeremony(s, c, names)
	printSigned(s, c, names)
	switch {
	case p == nil && c.Enough():
		s.Printf("%s %s waits in %s\nNext: sealpub publish %s --dir %s\n", s.Empty(), c.Name, file, c.Name, v.Dir)
	case p == nil:
		s.Printf("%s %s waits for signatures: %s\nNext: sealpub sign %s --key KEYFILE, on any machine; then sealpub publish %s --dir %s\n",
			s.Empty(), c.Name, file, file, c.Name, v.Dir)
	case !p.Shown:
		s.Printf("%s %s is published; devices see it when the server has signed the next snapshot\n", s.Good(), c.Name)
	default:
		s.Printf("%s %s is published\n", s.Good(), c.Name)
	}
	if p != nil && strings.HasPrefix(c.Name, catalog.Root+"-") {
		s.Printf("Next: root.json of the folder goes into the next OS image; devices that run find the way by themselves\n")
	}
	return nil
}
