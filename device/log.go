package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/upstream"
	"github.com/sealant-os/sealant/internal/amount"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/ticket"
)

// logSchema names the document log.json, in which the device remembers the
// public log's head (spec/state.md).
const (
	logDocument = "log"
	logSchema   = "sealant.log/1"
)

// logSeen is what the device saw of the public log. Heads are kept as they were
// signed: what can't be denied later is worth more than what was computed.
type logSeen struct {
	Schema string    `json:"schema"`
	Key    string    `json:"key"`            // name and hash of the key that signed
	Head   string    `json:"head"`           // the longest head that was proven
	Time   time.Time `json:"time"`           // when the log was last proven to hold what was installed
	Fork   string    `json:"fork,omitempty"` // a head that contradicts it, "" if none was seen
}

// logKey is the key of the public log that the operating system pins; nil if it
// pins none.
func (d *Device) logKey() (note.Verifier, error) {
	file, err := store.ReadFile(d.Store.LogKeyPath(), setlog.MaxKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var v note.Verifier
	if err == nil {
		v, err = setlog.ParseKey(file)
	}
	if err != nil {
		return nil, fault.New(fault.Stale, "cannot check the public log: %w", err).Hint("the OS image's %s is damaged", d.Store.LogKeyPath())
	}
	return v, nil
}

// keyName tells keys apart: one that the operating system replaced begins a
// new history.
func keyName(v note.Verifier) string { return fmt.Sprintf("%s+%08x", v.Name(), v.KeyHash()) }

// logSeen reads what was seen of the log with this key, and verifies it. Of
// another key's log nothing was seen.
func (d *Device) logSeen(v note.Verifier) (logSeen, tlog.Tree, error) {
	var seen logSeen
	err := d.Store.ReadDocument(logDocument, logSchema, &seen)
	if errors.Is(err, store.ErrEmpty) || err == nil && seen.Key != keyName(v) {
		return logSeen{}, tlog.Tree{}, nil
	}
	var tree tlog.Tree
	if err == nil {
		tree, err = setlog.OpenHead([]byte(seen.Head), v)
	}
	if err == nil && seen.Fork != "" {
		_, err = setlog.OpenHead([]byte(seen.Fork), v)
	}
	if err != nil {
		return logSeen{}, tlog.Tree{}, fault.New(fault.Stale, "cannot read what this device saw of the public log: %w", err).
			Hint("removing log.json in %s makes it begin anew", d.Store.Dir())
	}
	return seen, tree, nil
}

// checkLog proves that a set that was authorised stands in the public log, and
// that the log still has all that it had when this device last looked. So a
// signing key in wrong hands can't serve this device alone in secret. It does
// nothing where the operating system pins no log.
func (d *Device) checkLog(ctx context.Context, server string, c ticket.Claims, report Report) error {
	v, err := d.logKey()
	if v == nil || err != nil {
		return err
	}
	seen, before, err := d.logSeen(v)
	if err != nil {
		return err
	}
	client := setlog.Client{Verifier: v, Fetch: func(path string, limit int64) ([]byte, error) { return d.fetchLog(ctx, server, path, limit) }}
	proof, err := client.Prove(setlog.Text(c), before)
	if errors.Is(err, setlog.ErrFork) {
		seen.Fork = string(proof.Head)
		if werr := d.Store.WriteDocument(logDocument, seen); werr != nil {
			report.warn("log", "the evidence could not be kept: %v", werr)
		}
	}
	if err != nil {
		return logFault(err)
	}
	if proof.Tree.N >= before.N {
		seen.Head = string(proof.Head)
	}
	seen.Schema, seen.Key, seen.Time = logSchema, keyName(v), d.Now().UTC().Truncate(time.Second)
	if err := d.Store.WriteDocument(logDocument, seen); err != nil {
		return err
	}
	report.done("log", "in the public log of %d sets", max(proof.Tree.N, before.N))
	return nil
}

// logFault says in a person's words what is wrong, and whether trying again
// can help.
func logFault(err error) error {
	switch {
	case errors.Is(err, setlog.ErrFork):
		return fault.New(fault.Stale, "cannot trust the public log: %w", err).
			Hint("tell the vendor: sealant verify shows the proof, which is kept; nothing was changed")
	case errors.Is(err, setlog.ErrLost):
		return fault.New(fault.Stale, "cannot trust the public log: %w", err).
			Hint("the server's database may have been put back to an older state: tell the vendor")
	case errors.Is(err, setlog.ErrLie):
		return fault.New(fault.Stale, "cannot trust the public log: %w", err).
			Hint("somebody between here and the server may be changing what it says; try another network")
	case errors.Is(err, setlog.ErrAbsent):
		return fault.New(fault.Refused, "cannot accept the ticket: it is valid, but the vendor's public log does not have this set").
			Hint("the signing key may be in wrong hands: tell the vendor; nothing was changed")
	}
	return err // temporary: fetchLog has said why
}

// fetchLog reads a file of the log from a server.
func (d *Device) fetchLog(ctx context.Context, server, path string, limit int64) ([]byte, error) {
	limited, stop := context.WithTimeout(ctx, upstream.AnswerTime)
	defer stop()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, server+"/log/"+path, nil)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the public log: %w", err)
	}
	req.Header.Set("User-Agent", "sealant/1")
	resp, err := d.Client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, upstream.Explain(fault.New(fault.Unreachable, "cannot reach the public log: %w", err))
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, setlog.ErrAbsent
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		return nil, fault.New(fault.Busy, "the public log can't be read at the moment: %s", resp.Status).Hint("nothing is wrong with this device; try again later")
	case resp.StatusCode != http.StatusOK:
		return nil, fault.New(fault.Unreachable, "cannot read the public log: the server answered %s", resp.Status).Hint("is server.url right?")
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fault.New(fault.Unreachable, "cannot read the public log: %w", err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: /log/%s has more than %d bytes", setlog.ErrLie, path, limit)
	}
	return data, nil
}

// verifyLog shows what this device saw of the log last.
func (d *Device) verifyLog(v *Verified) {
	key, err := d.logKey()
	if key == nil && err == nil {
		return
	}
	var seen logSeen
	var tree tlog.Tree
	if err == nil {
		seen, tree, err = d.logSeen(key)
	}
	switch {
	case err != nil:
		v.add("log", err, "")
	case seen.Fork != "":
		fork, _ := setlog.OpenHead([]byte(seen.Fork), key)
		v.add("log", fault.New(fault.Stale, "the public log of %s showed this device two histories: heads of %d and %d sets contradict each other; both are kept in %s/log.json",
			key.Name(), tree.N, fork.N, d.Store.Dir()), "")
	case seen.Head == "":
		v.warn("log", "never", "nothing was installed since the log of %s is pinned", key.Name())
	default:
		v.add("log", nil, "%s, %d sets · proven %s ago", key.Name(), tree.N, amount.Span(d.Now().Sub(seen.Time)))
	}
}

// examineLog says whether the log is checked.
func (d *Device) examineLog(g *Diagnosis) {
	v, err := d.logKey()
	switch {
	case err != nil:
		g.add("L1", "bad", "install the OS image again", "%v", err)
		return
	case v == nil:
		g.add("L1", "warn", "the OS vendor can pin it: /usr/lib/sealant/log-key.txt",
			"no public log is pinned: a stolen signing key could serve this device alone without anybody else seeing it")
		return
	}
	switch seen, tree, err := d.logSeen(v); {
	case err != nil:
		g.add("L1", "bad", "", "%v", err)
	case seen.Fork != "":
		g.add("L1", "bad", "tell the vendor, with "+d.Store.Dir()+"/log.json", "the public log of %s showed this device two histories", v.Name())
	case tree.N == 0:
		g.add("L1", "ok", "", "every improvement must be in the public log of %s; none was installed yet", v.Name())
	default:
		g.add("L1", "ok", "", "every improvement must be in the public log of %s (%d sets when last proven)", v.Name(), tree.N)
	}
}
