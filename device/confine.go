package device

import (
	"errors"
	"io/fs"

	"github.com/sealant-os/sealant/device/enforce"
	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// Confine makes what is launched a strict app's where that must be. Policy may give
// up on what apps.d says, for everybody; not on what a strict app starts.
func Confine(st *store.Store) launch.Confine {
	return func(program linux.Pidfd, strict bool, caller linux.Pidfd) error {
		if strict {
			c, err := policy.Load(st.ConfigDir())
			if err != nil {
				return err
			}
			strict = c.Policy.TrustExecution != enforce.Off.String()
		}
		asked := caller != linux.Pidfd{}
		if !strict && !asked {
			return nil
		}
		g, err := enforce.Open()
		switch {
		case errors.Is(err, fs.ErrNotExist) && !strict:
			return nil // then the caller is none
		case errors.Is(err, fs.ErrNotExist):
			return fault.New(fault.Policy, "cannot launch a strict app: nothing here enforces that it executes only what is sealed").
				Hint("sealant doctor says what lacks; without it: trust.execution = \"off\"")
		case err != nil:
			return err
		}
		defer g.Close()
		if !strict {
			if strict, err = g.Marked(caller); err != nil || !strict {
				return err
			}
		}
		return g.Mark(program)
	}
}
