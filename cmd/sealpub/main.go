// Sealpub is the publisher's tool: it turns trees into sealed images, images
// into patches, and patches into signed releases.
package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
)

func main() { cli.Main(root()) }

// groups make the commands of the root, one line for each file that has one.
var groups = []func() *cobra.Command{
	newInit,     // init.go
	newImage,    // image_group.go
	newPatch,    // patch.go
	newDiff,     // patch_diff.go
	newRelease,  // release.go
	newSign,     // sign.go
	newPublish,  // sign.go
	newWithdraw, // sign.go
	newAdvisory, // advisory.go
	newIPE,      // ipe.go
	newKeys,     // keys.go
	newRoot,     // root.go
	newRefresh,  // refresh.go
	newTicket,   // ticket.go
}

func root() *cobra.Command {
	cmd := cli.New("sealpub", "make and publish security improvements",
		`sealpub turns trees of files into sealed disk images (cryptexes), two images into
a patch and an antipatch, and patches into a signed release that a server can
publish. Its keys never leave it.`)
	for _, group := range groups {
		cmd.AddCommand(group())
	}
	return cmd
}
