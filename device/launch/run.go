package launch

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// Run is the command "sealant run": it starts an app of apps.d or, with no app, the
// command that args are, and gives the program this process's environment, folder
// and streams. For root it does not return unless it failed; for others it returns
// the program's exit code.
func Run(st *store.Store, confine Confine, app string, args []string) (code int, err error) {
	if app == "" {
		if args, err = command(args); err != nil {
			return 0, err
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	if !linux.Root() {
		// A context without an end: signals are the program's.
		_, status, err := Through(context.Background(), st, Request{App: app, Args: args, Env: os.Environ(), Dir: dir})
		return status.ExitCode(), err
	}
	// A mistake in the configuration is in the way of an app that it describes, not
	// of any other command.
	var apps []policy.App
	if config, err := policy.Load(st.ConfigDir()); err == nil {
		apps = config.Apps
	} else if app != "" {
		return 0, err
	}
	p, err := Resolve(apps, app, args)
	if err != nil {
		return 0, err
	}
	p.Env, p.Dir = os.Environ(), dir
	return 0, Exec(st, confine, p)
}

// command finds the program of a command line as a shell would.
func command(args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, fault.New(fault.Usage, "cannot launch: no program is named")
	}
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return nil, fault.New(fault.Usage, "cannot find the command: %w", err)
	}
	if !strings.Contains(path, "/") {
		path = "./" + path
	}
	return append([]string{path}, args[1:]...), nil
}
