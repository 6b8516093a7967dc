// Sealant is the command of a device that receives security improvements, and
// its agent.
package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
)

func main() { cli.Main(program()) }

// commands are made one per file.
var commands = []func() *cobra.Command{
	newStatus, newCheck, newInstall, newRun, newRelaunch, newPs, newRemove, newReapply, newRestart, newHistory, newVerify, newShow, newCVE,
	newPolicy, newDoctor, newEnforce, newEnroll, newBase, newAgent, newConfirm, newLauncher, newLaunchChild, newLaunchFailed, newNotifyChild, newEvidence, newAnalytics, newSettings, newMetrics,
}

func program() *cobra.Command {
	root := cli.New("sealant", "security improvements of this device",
		`Sealant brings security fixes for parts of the operating system onto this device
between OS updates, within hours, and takes them off again.

  sealant status     what this device has, and what of it is active
  sealant check      ask for news; --why says why nothing is offered
  sealant install    install the newest improvement; nothing running is changed
  sealant remove     back to what the last OS update installed`)
	root.PersistentFlags().String("root", "/", "the device's file system starts in this folder")
	for _, c := range commands {
		root.AddCommand(c())
	}
	return root
}
