package catalog

import (
	"context"
	"crypto"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	signed "github.com/sealant-os/sealant/release/catalog"
)

// Keeper shows devices what others published, and renews the signatures that
// live for days before they end. It holds the online keys: those of snapshot
// and timestamp.
type Keeper struct {
	Repository *signed.Repository
	Dir        string // of the repository
	Online     []crypto.Signer
	Now        func() time.Time
	Log        *slog.Logger

	expires atomic.Int64 // seconds of Unix time
}

// How often the folder is looked at for something new, and how often the
// signatures are looked at in any case.
const (
	lookAtFolder     = time.Second
	lookAtSignatures = time.Minute
)

// Refresh does what is due now. It is safe to call at any time and from any
// process: nothing is signed that is fresh already.
func (k *Keeper) Refresh() error {
	st, err := k.Repository.Refresh(k.Online, k.Now())
	if err != nil {
		return err
	}
	k.expires.Store(st.Expires.Unix())
	if st.Changed {
		k.Log.Info("catalog shown", "snapshot", st.Snapshot, "expires", st.Expires)
	}
	return nil
}

// Expires is when the timestamp in force ends; zero before the first Refresh.
func (k *Keeper) Expires() time.Time {
	if s := k.expires.Load(); s != 0 {
		return time.Unix(s, 0).UTC()
	}
	return time.Time{}
}

// Run refreshes until ctx ends: as soon as something new lies in the folder,
// and once a minute.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(lookAtFolder)
	defer tick.Stop()
	var stamp, last time.Time
	for {
		now := k.Now()
		info, err := os.Stat(filepath.Join(k.Dir, "metadata"))
		if err == nil && (!info.ModTime().Equal(stamp) || now.Sub(last) >= lookAtSignatures || now.Before(last)) {
			stamp, last = info.ModTime(), now
			err = k.Refresh()
		}
		// Busy: another server on the same folder was faster.
		if err != nil && fault.KindOf(err) != fault.Busy {
			k.Log.Error("catalog not refreshed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
