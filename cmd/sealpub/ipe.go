package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/publish"
)

func newIPE() *cobra.Command {
	var (
		dir string
		o   publish.IPEOrder
	)
	cmd := &cobra.Command{
		Use:   "ipe",
		Short: "write a policy for Linux's Integrity Policy Enforcement",
		Long: `Writes the text of an IPE policy to standard output: only what the boot loader
verified, and what is read from a cryptex of a published baseline or improvement,
may execute. It is for systems that use IPE (Linux 6.12) rather than, or beside,
the enforcement of trust caches: the kernel itself holds to it, and root can't
take it away.

The root hash of the system's own /usr must be among --root, or nothing of it
executes any more. Every policy needs a higher version than the one before.
Improvements that were recalled are left out.

  sealpub ipe --dir vendor --policy-version 0.0.7 --root 5f7a…=usr >sealant.pol
  openssl smime -sign -in sealant.pol -signer cert.pem -inkey key.pem -noattr \
    -nodetach -nosmimecap -outform der -out sealant.p7b`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := cli.For(cmd)
			v, err := publish.Open(dir)
			if err != nil {
				return err
			}
			text, err := v.IPE(o)
			if err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.ipe/1", map[string]string{"policy": text})
			}
			s.Printf("%s", text)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the vendor folder")
	cmd.Flags().StringVar(&o.Version, "policy-version", "", "three numbers: 0.0.7")
	cmd.Flags().StringVar(&o.Name, "name", "sealant", "the policy's name in the kernel")
	cmd.Flags().StringVar(&o.Baseline, "baseline", "", "only this baseline (digest in hex) and its improvements")
	cmd.Flags().StringArrayVar(&o.Roots, "root", nil, "also allow this root hash (HEX or HEX=WHAT); may be repeated")
	cmd.Flags().BoolVar(&o.Recalled, "recalled", false, "leave recalled improvements allowed")
	if err := cmd.MarkFlagRequired("policy-version"); err != nil {
		panic(err)
	}
	return cmd
}
