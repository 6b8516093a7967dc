// Sealant-launch is what everybody waits for who launches a program: sealant run,
// and what the agent starts to become the program. It is a program of its own
// because it is small and starts in a moment.
//
// Installed, it also stands at /usr/bin/sealant. What is not a plain sealant run
// it leaves to the whole program, with the same arguments, and so it does with
// saying why a launch failed.
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// whole is the program that has all commands.
const whole = "/usr/lib/sealant/sealant"

func main() {
	args := os.Args[1:]
	if len(args) == 2 && args[0] == launch.ChildCommand {
		if err := launch.Child(args[1]); err != nil {
			os.Exit(fault.ExitCode(err)) // whoever started it was told
		}
		return
	}
	app, rest, ok := plainRun(args)
	if !ok {
		fail(leave(args))
	}
	st := store.Below("/")
	if linux.Root() { // else it is the agent who reads the state
		var err error
		if st, err = store.Open("/"); err != nil {
			fail(err)
		}
	}
	code, err := launch.Run(st, confine, app, rest)
	if err != nil {
		fail(err)
	}
	os.Exit(code)
}

// plainRun reads "run APP", "run APP -- ARGS" and "run -- COMMAND ARGS"; ok is false
// for everything else.
func plainRun(args []string) (app string, rest []string, ok bool) {
	switch {
	case len(args) < 2 || args[0] != "run":
		return "", nil, false
	case args[1] == "--":
		return "", args[2:], len(args) > 2
	case strings.HasPrefix(args[1], "-") || len(args) > 2 && args[2] != "--":
		return "", nil, false
	}
	return args[1], args[min(3, len(args)):], true
}

// confine leaves strict apps that root launches to the whole program, which alone
// can make them so.
func confine(_ linux.Pidfd, strict bool, _ linux.Pidfd) error {
	if !strict {
		return nil
	}
	return leave(os.Args[1:])
}

// leave becomes the whole program.
func leave(args []string) error {
	err := syscall.Exec(whole, append([]string{"sealant"}, args...), os.Environ())
	return fmt.Errorf("cannot execute %s: %w", whole, err)
}

// fail has the whole program say what went wrong; where it is missing, this one does.
func fail(err error) {
	if text, ferr := launch.Failure(err); ferr == nil {
		_ = leave([]string{launch.FailedCommand, text})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(fault.ExitCode(err))
}
