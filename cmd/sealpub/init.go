package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/publish"
)

func newInit() *cobra.Command {
	var setup publish.Setup
	var pass secret
	cmd := &cobra.Command{
		Use:   "init DIR --product NAME --os-version VERSION",
		Short: "make a vendor folder: keys and an empty, signed catalog",
		Long: `Makes DIR the publisher's folder for one product: keys for every role, a catalog
signed by them, and the three files that the OS image pins: the root of the catalog, the
root of tickets, and the key of the public log in which the server puts every set
that it authorises.

Each owner has a root and a targets key; a release needs the signatures of as
many owners as --threshold says. Keys are encrypted with passphrases that are
asked for; the four online keys, which a server uses by itself, are not.

  sealpub init vendor --product ExampleOS --os-version 42.3.0 --owners alice,bob,carol --threshold 2

A recall and advice need one signature, of keys that any owner may hold. Let two
people recall together, of whom three can:

  sealpub init vendor --product ExampleOS --os-version 42.3.0 --recall-keys 3 --recall-threshold 2

--throwaway makes every key without a passphrase. Whoever can read such a folder
can sign what it likes: it is for laboratories.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			setup.Passphrase = perOwner(s, &pass)
			v, err := publish.Init(args[0], setup)
			if err != nil {
				return err
			}
			owners, err := v.Owners()
			if err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.vendor-made/1", struct {
					Dir       string `json:"dir"`
					Product   string `json:"product"`
					OSVersion string `json:"os_version"`
					Owners    int    `json:"owners"`
					Throwaway bool   `json:"throwaway"`
				}{v.Dir, v.Product, v.OSVersion, len(owners), setup.Throwaway})
			}
			s.Printf("%s %s %s for %s %s\n", s.Good(), v.Dir, s.Dash(), v.Product, v.OSVersion)
			s.Printf("  keys/                      root and targets keys of %s, recall, advice, the root of tickets: keep them offline\n", plural(len(owners), "owner"))
			s.Printf("  keys/online/               snapshot, timestamp, rollout, log: the server needs these four and no other\n")
			s.Printf("  repo/                      the catalog: what the server serves below /tuf\n")
			s.Printf("  root.json ticket-root.pem log-key.txt\n")
			s.Printf("                             into the OS image, under /usr/lib/sealant\n")
			if setup.Throwaway {
				s.Printf("%s %s\n", s.Warn(), s.Alarm("THROWAWAY KEYS: none has a passphrase. Whoever can read this folder can sign for you. Never ship root.json of this folder."))
			}
			s.Printf("Next:\n")
			s.Printf("  sealpub image split --root TREE --cryptex NAME=PATTERNS --out images   move content out of the OS tree\n")
			s.Printf("  sealpub release baseline --dir %s images/*.cryptex                     publish it, and write base.json\n", v.Dir)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&setup.Product, "product", "", "the product's name: letters, digits, dot, dash, underscore")
	f.StringVar(&setup.OSVersion, "os-version", "", "the OS version that the first baseline belongs to")
	f.StringSliceVar(&setup.Owners, "owners", nil, "who owns root and targets keys (default one, \"owner\")")
	f.IntVar(&setup.Threshold, "threshold", 0, "how many owners must sign (default more than half)")
	f.IntVar(&setup.Recall.Keys, "recall-keys", 0, "how many recall keys to make (default 1, or the threshold)")
	f.IntVar(&setup.Recall.Threshold, "recall-threshold", 0, "how many of them must sign a recall (default 1)")
	f.IntVar(&setup.Advice.Keys, "advice-keys", 0, "how many advice keys to make (default 1, or the threshold)")
	f.IntVar(&setup.Advice.Threshold, "advice-threshold", 0, "how many of them must sign the advice list (default 1)")
	f.StringVar(&setup.Publisher.Name, "publisher", "", "who speaks on the public pages (default: the product's name)")
	f.StringVar(&setup.Publisher.URL, "url", "", "the address of the public pages: https://example.com/security")
	f.StringVar(&setup.Publisher.Contact, "contact", "", "for people who found a flaw: mailto:… or https://…")
	f.StringVar(&setup.Publisher.Support, "support-until", "", "the end of support: 2031-06")
	f.BoolVar(&setup.Throwaway, "throwaway", false, "keys without passphrases, for laboratories only")
	pass.flags(cmd)
	_ = cmd.MarkFlagRequired("product")
	_ = cmd.MarkFlagRequired("os-version")
	return cmd
}

// perOwner asks for the passphrases of new keys, once for each owner: the two
// keys of an owner share one.
func perOwner(s *cli.Screen, pass *secret) publish.NewPassphrase {
	known := map[string][]byte{}
	return func(key string) ([]byte, error) {
		owner := key
		for _, role := range []string{"root-", "targets-"} {
			owner = strings.TrimPrefix(owner, role)
		}
		if word, ok := known[owner]; ok {
			return word, nil
		}
		word, err := pass.choose(s, owner)
		if err == nil {
			known[owner] = word
		}
		return word, err
	}
}
