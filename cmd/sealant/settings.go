package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/settings"
	"github.com/sealant-os/sealant/device/wording"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

func newSettings() *cobra.Command {
	var address, remove bool
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "open the settings page of this device in your browser",
		Long: `Settings serves a page to you alone, on a port of this machine that no other user and
no other machine can use, and opens it in your browser: install automatically or not,
what is installed and who uses it, relaunch and restart, remove, what is shared and
exactly what would be sent. You can do there what you may do on a terminal, no more.
It ends when the page was closed for a while.

Without a browser, --address prints the address to open, which works once. With
--json it prints what the page would show. automatic turns its first switch.`,
		Example: "  sealant settings\n  sealant settings --json\n  sealant settings automatic off",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := cli.For(cmd)
			if s.JSON {
				v, err := ask[settings.View](cmd, "settings", none{})
				if err != nil {
					return err
				}
				return s.Document("sealant.settings/1", v)
			}
			return serveSettings(cmd, address, remove)
		},
	}
	cmd.Flags().BoolVar(&address, "address", false, "print the page's address and don't open a browser")
	cmd.Flags().BoolVar(&remove, "remove", false, "open it with the question whether to remove all improvements")
	cmd.AddCommand(newAutomatic())
	return cmd
}

func serveSettings(cmd *cobra.Command, address, remove bool) error {
	s := cli.For(cmd)
	page := device.SettingsPage(rootOf(cmd), uint32(os.Getuid()), wording.Of(os.Getenv), func(ctx context.Context, app string) error {
		return relaunchHere(ctx, rootOf(cmd), app)
	})
	if remove {
		page.Ask = settings.Remove
	}
	// Whether this device can be asked at all is better said here than on a page.
	if _, err := ask[settings.View](cmd, "settings", none{}); err != nil {
		return err
	}
	url, err := page.Open()
	if err != nil {
		return err
	}
	if !address {
		if err := browse(cmd.Context(), url); err != nil {
			s.Notef("%s cannot open a browser: %v\n", s.Warn(), err)
			address = true
		}
	}
	if address {
		s.Printf("%s\n", url)
	}
	return page.Serve(cmd.Context())
}

// browse opens an address in the person's browser.
func browse(ctx context.Context, url string) error {
	cmd := exec.CommandContext(ctx, "xdg-open", url)
	return cmd.Run()
}

// relaunchHere relaunches an app in this session, as the command does.
func relaunchHere(ctx context.Context, root, app string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "--root", root, "relaunch", app)
	cmd.Stdout, cmd.Stderr = io.Discard, nil
	var message limitedText
	cmd.Stderr = &message
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	for _, k := range fault.Kinds() {
		if k.ExitCode() == exit.ExitCode() {
			return fault.New(k, "%s", message.last())
		}
	}
	return err
}

func newAutomatic() *cobra.Command {
	return &cobra.Command{
		Use:       "automatic on|off",
		Short:     "install improvements by themselves, or not",
		Long:      "Automatic adds security fixes between software updates. If off, this device gets them\nwith a later software update, or when a person runs sealant install.",
		Example:   "  sudo sealant settings automatic off",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"on", "off"},
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := ask[device.AutomaticOptions](cmd, "automatic", device.AutomaticOptions{On: args[0] == "on"})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.automatic/1", o)
			}
			printf(s, "%s Automatically Install is %s.\n", s.Good(), args[0])
			return nil
		},
	}
}
