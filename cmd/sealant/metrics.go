package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newMetrics() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "print what a monitoring system wants to know",
		Long: `Metrics prints, in Prometheus' text format, the level of each cryptex, how many
processes use the installed content and how many do not yet, how old the news of the
vendor is, how often content did not have its seal, and how long the newest
improvement has been published without being active everywhere. With --out it
replaces a file in one step, for the textfile collector of node_exporter.`,
		Example: "  sealant metrics\n  sudo sealant metrics --out /var/lib/prometheus/node-exporter/sealant.prom",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := ask[device.Metrics](cmd, "metrics", none{})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			switch {
			case out != "":
				return replace(out, m.Text)
			case s.JSON:
				return s.Document("sealant.metrics/1", m)
			}
			s.Printf("%s", m.Text)
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write them to this file")
	return cmd
}

// replace writes a file so that a reader sees the old or the new text.
func replace(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".sealant-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
