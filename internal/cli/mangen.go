//go:build mangen

package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// With the build tag mangen every program has a command that writes its man
// pages; without it no program carries the generator.
func init() {
	generators = append(generators, func(root *cobra.Command) *cobra.Command {
		return &cobra.Command{
			Use: "mangen DIR", Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				root.DisableAutoGenTag = true
				return doc.GenManTree(root, &doc.GenManHeader{Section: "8", Source: "Sealant", Manual: "Sealant"}, args[0])
			},
		}
	})
}
