package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

// stories are the demos by name.
var stories = map[string]func(*story) error{
	"reader":   tellReader,
	"openssl":  tellOpenSSL,
	"refusals": tellRefusals,
}

func newDemo() *cobra.Command {
	var name string
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "tell the whole story on a pretend device, for real",
		Long: `Demo publishes a baseline and improvements, boots a pretend device, and takes it
through the life of an improvement: install, relaunch, restart, removal,
reapplication, recall, recommendation. Each command is printed as a person
would type it; what follows is what it really printed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return tell(cli.For(cmd), name, keep, false)
		},
	}
	cmd.Flags().StringVar(&name, "story", "reader", "which story: reader, openssl, refusals")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the vendor's desk and the device's folder")
	return cmd
}

func newTest() *cobra.Command {
	var name string
	var keep bool
	cmd := &cobra.Command{
		Use:   "test",
		Short: "the same stories with one line a step, and a verdict",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return tell(cli.For(cmd), name, keep, true)
		},
	}
	cmd.Flags().StringVar(&name, "story", "reader", "which story: reader, openssl, refusals")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the vendor's desk and the device's folder")
	return cmd
}

func tell(screen *cli.Screen, name string, keep, terse bool) error {
	narrate, ok := stories[name]
	if !ok {
		return fault.New(fault.Usage, "unknown story %q", name).Hint("reader, openssl, refusals")
	}
	dir, err := os.MkdirTemp("", "sealant-lab-")
	if err != nil {
		return fmt.Errorf("cannot make a folder for the story: %w", err)
	}
	s := &story{screen: screen, out: screen.Out, dir: dir, terse: terse, begun: time.Now()}
	if s.device, err = openDevice(filepath.Join(dir, "kiosk")); err != nil {
		os.RemoveAll(dir)
		return err
	}
	if err := narrate(s); err != nil {
		s.close(keep)
		return err
	}
	s.note("the whole story", "%.0f s", time.Since(s.begun).Seconds())
	return s.end(keep)
}

// write puts a file on the vendor's desk or on the device (paths from /).
func (s *story) write(path, text string) error {
	full := filepath.Join(s.dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	return os.WriteFile(full, []byte(strings.TrimLeft(text, "\n")), 0o644)
}

// size is the size of a file of the story, in bytes.
func (s *story) size(path string) int64 {
	info, err := os.Stat(filepath.Join(s.dir, path))
	if err != nil {
		return -1
	}
	return info.Size()
}
