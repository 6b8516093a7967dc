// Sealant-lab is a pretend device in a mount namespace of its own, over this
// machine's root: for the demo, for end-to-end tests, and for trying things.
// Nothing outside the namespace is changed but the device's folder.
package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
)

func main() { cli.Main(root()) }

func root() *cobra.Command {
	cmd := cli.New("sealant-lab", "a pretend device for demos and tests",
		`sealant-lab keeps a pretend device in a folder. The device has its own /usr, /etc,
/var/lib/sealant and /run, laid over this machine's own in a private mount
namespace; everything else is shared. It boots with the real sealant-boot and
runs the real agent. It needs root.`)
	cmd.AddCommand(newDemo(), newTest(), newUp(), newBoot(), newExec(), newDown(), newUse(), newInit())
	return cmd
}
