// Sealant-launch becomes a program that somebody asked the agent to start. It is
// the agent's child, and a program of its own because every launch waits for it:
// it is small and starts in a moment.
package main

import (
	"os"

	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/internal/fault"
)

func main() {
	if err := launch.Child(); err != nil {
		os.Exit(fault.ExitCode(err)) // whoever started it was told
	}
}
