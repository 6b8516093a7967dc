// Sealsrv is the server, and the operator's command beside it.
package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
)

func main() { cli.Main(root()) }

// groups make the commands of the root, one line for each file that has one.
var groups = []func() *cobra.Command{
	newDev,       // dev.go
	newServe,     // serve.go
	newEnroll,    // enroll.go
	newDevices,   // devices.go
	newRollout,   // rollout.go
	newRecall,    // recall.go
	newRecommend, // recommend.go
	newReport,    // report.go
	newEvidence,  // evidence.go
	newAudit,     // audit.go
	newLeaf,      // leaf.go
	newLog,       // log.go
	newKeys,      // keys.go
	newMirror,    // mirror.go
	newBackup,    // backup.go
}

func root() *cobra.Command {
	cmd := cli.New("sealsrv", "serve improvements, authorise devices, run rollouts",
		`sealsrv serves the signed catalog, enrols devices, signs one ticket for each
device and set, and is the operator's command: it starts, halts and watches
rollouts, takes improvements back, and recommends their removal. It holds no key
that could make a device accept content the publisher did not sign.

The commands beside serve and dev work on the same database and catalog, while
the server runs or without it.`)
	flags := cmd.PersistentFlags()
	flags.String("config", "/etc/sealant/sealsrv.toml", "configuration file")
	flags.String("dir", "", "development folder, in place of --config (see sealsrv dev)")
	for _, group := range groups {
		cmd.AddCommand(group())
	}
	return cmd
}
