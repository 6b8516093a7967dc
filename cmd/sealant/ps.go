package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/running"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/linux"
)

func newPs() *cobra.Command {
	var proof bool
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "what runs on which content, and what to do about it",
		Long: `Ps lists every process that uses content of a cryptex, which improvement that content
is from, and how it gets to the newest: nothing, a relaunch, or a restart. It goes by
what a process has mapped and by its mounts, never by names.`,
		Example: "  sealant ps\n  sealant ps --proof\n  sealant ps --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := ask[device.Running](cmd, "ps", none{})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.ps/1", r)
			}
			printProcesses(s, r, proof)
			return nil
		},
	}
	cmd.Flags().BoolVar(&proof, "proof", false, "show namespaces, devices and mapped files too")
	return cmd
}

// glyphOf is a state's mark; its word stands in the column beside it.
func glyphOf(s *cli.Screen, state running.State) string {
	switch state {
	case running.Active:
		return s.Full()
	case running.Older:
		return s.Half()
	}
	return s.Empty()
}

func printProcesses(s *cli.Screen, r device.Running, proof bool) {
	name, cryptex, content := len("APP/UNIT"), len("CRYPTEX"), len("CONTENT")
	for _, u := range r.Uses {
		name, cryptex = max(name, len(u.Name())), max(cryptex, len(u.Cryptex))
		content = max(content, len(contentOf(r, u)))
	}
	printf(s, "%7s %-*s %-*s %-*s   TO DO\n", "PID", name, "APP/UNIT", cryptex, "CRYPTEX", content, "CONTENT")
	for _, u := range r.Uses {
		todo := u.Todo
		if todo == "" {
			todo = s.Dash()
		}
		printf(s, "%7d %-*s %-*s %-*s %s %s\n", u.PID, name, u.Name(), cryptex, u.Cryptex, content, contentOf(r, u), glyphOf(s, u.State), todo)
		if proof {
			printProof(s, u)
		}
	}
	if len(r.Uses) == 0 {
		s.Notef("no process uses content of a cryptex\n")
	}
	if r.Hidden > 0 {
		s.Notef("%s %s\n", s.Warn(), hidden(r.Hidden))
	}
}

// hidden says how many processes could not be looked into. Even root may be
// kept from some, by a sandbox.
func hidden(n int) string {
	text := sprintf("%d processes could not be looked into", n)
	if n == 1 {
		text = "1 process could not be looked into"
	}
	if !linux.Root() {
		text += ": they are not yours (sudo sealant ps)"
	}
	return text
}

// contentOf is the level that the content has: "42.3 (b)", "42.3 base".
func contentOf(r device.Running, u running.Use) string {
	return device.VersionText(r.OSVersion) + " " + u.Label
}

func printProof(s *cli.Screen, u running.Use) {
	p := u.Proof
	var how []string
	if len(p.Files) > 0 {
		how = append(how, "mapped")
	}
	if p.Launched {
		how = append(how, "launched with it")
	}
	mounted := "mounted"
	if !p.Mounted {
		mounted = "unmounted since"
	}
	printf(s, "        image %s  device %s, %s  mount namespace %d  by: %s\n",
		s.Short(u.Image.String()), p.Device, mounted, p.Namespace, strings.Join(how, ", "))
	for _, f := range p.Files {
		printf(s, "        %s\n", f)
	}
}
