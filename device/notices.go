package device

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sealant-os/sealant/device/notify"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/wording"
)

// How often the agent looks whether something else waits than before; how often it
// looks, if something waits, which apps run; and how long something that was told is
// not told again.
const (
	noticeEvery = 5 * time.Second
	lookEvery   = time.Minute
	noticeAgain = 24 * time.Hour
)

// notice is something that a person at the screen is to know.
type notice struct {
	key     string // what it is about: told once a day
	say     func(*wording.Language) notify.Text
	actions []notify.Action
	urgent  bool
}

const noticesSchema = "sealant.notices/1"

// noticesDocument says when what was told.
type noticesDocument struct {
	Schema string               `json:"schema"`
	Told   map[string]time.Time `json:"told"`
}

// notices are what is to be told now, whether it was told already or not.
func (d *Device) notices(ctx context.Context) ([]notice, error) {
	st, err := d.state()
	if err != nil || st.next == nil {
		return nil, err // nothing waits: no need to look at all processes
	}
	s, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	if p, ok := d.plannedRestart(); ok && s.Restart {
		if n, ok := d.dueNotice(p); ok {
			return []notice{n}, nil
		}
		return nil, nil
	}
	switch s.State {
	case StateReverting:
		return d.recallNotice(ctx, s), nil
	case StateStaged, StatePartly:
		return d.stagedNotices(s), nil
	}
	return nil, nil
}

// stagedNotices say of an improvement which apps it waits for, or that it waits for
// a restart.
func (d *Device) stagedNotices(s Status) []notice {
	_, waiting := appsByState(s.Cryptexes)
	if len(waiting) > 0 && d.Config.Policy.ActivateRelaunch != "never" {
		names := make([]string, len(waiting))
		var actions []notify.Action
		for i, id := range waiting {
			names[i] = d.appName(id)
		}
		if len(waiting) == 1 {
			actions = []notify.Action{{Key: "relaunch", Run: d.self("relaunch", waiting[0])}, {Key: "later"}}
		} else {
			for _, id := range waiting {
				actions = append(actions, notify.Action{Key: "relaunch-" + id, Run: d.self("relaunch", id)})
			}
			actions = append(actions, notify.Action{Key: "later"})
		}
		return []notice{{
			key: "ready " + s.Release + " " + strings.Join(waiting, ","), actions: actions,
			say: func(l *wording.Language) notify.Text {
				labels := []string{l.Say("relaunch")}
				if len(names) > 1 {
					labels = labels[:0]
					for _, name := range names {
						labels = append(labels, l.Say("relaunch-app", "app", name))
					}
				}
				return notify.Text{
					Summary: l.Say("ready-title", "apps", l.List(names)), Body: l.Say("ready-body", "n", len(names)),
					Labels: append(labels, l.Say("later")),
				}
			},
		}}
	}
	if !s.Restart || d.Config.Policy.ActivateRestart == "never" {
		return nil
	}
	return []notice{{
		key: "restart " + s.Release, actions: d.restartActions(),
		say: func(l *wording.Language) notify.Text {
			return notify.Text{Summary: l.Say("restart-title"), Body: l.Say("restart-body"), Labels: []string{l.Say("restart-now"), l.Say("later")}}
		},
	}}
}

// restartActions are the buttons of a message about a restart. Who may restart is
// asked when it is done, as for the command.
func (d *Device) restartActions() []notify.Action {
	return []notify.Action{{Key: "restart", Run: d.self("restart")}, {Key: "later"}}
}

// self are the arguments by which this program does something on this device.
func (d *Device) self(args ...string) []string {
	if root := d.Store.Root(); root != "/" {
		args = append(args, "--root", root)
	}
	return args
}

func (d *Device) recallNotice(ctx context.Context, s Status) []notice {
	reason, recalled := d.recalled(ctx, s.Release)
	if !recalled {
		return nil
	}
	label := s.Improvement
	if m, err := d.manifest(s.Release); err == nil {
		label = m.Label()
	}
	return []notice{{
		key: "recall " + s.Release, actions: d.restartActions(), urgent: true,
		say: func(l *wording.Language) notify.Text {
			return notify.Text{
				Summary: l.Say("recall-title", "vendor", s.Product, "label", label),
				Body:    l.Say("recall-body", "reason", strings.TrimRight(upper(reason), ".")),
				Labels:  []string{l.Say("restart-now"), l.Say("later")},
			}
		},
	}}
}

// countdown is when a restart by policy is told of: with these minutes left.
var countdown = []time.Duration{Notice, 5 * time.Minute, time.Minute}

// dueNotice counts down to a restart by policy; ok is false once it is due.
func (d *Device) dueNotice(p restartPlan) (n notice, ok bool) {
	left := p.At.Sub(d.Now())
	if left <= 0 {
		return n, false
	}
	stage := countdown[0]
	for _, c := range countdown {
		if left <= c {
			stage = c
		}
	}
	minutes := int((left + 59*time.Second) / time.Minute)
	return notice{
		key: "due " + p.At.Format(time.RFC3339) + " " + stage.String(), urgent: true,
		actions: []notify.Action{{Key: "restart", Run: d.self("restart")}},
		say: func(l *wording.Language) notify.Text {
			owner := p.Owner
			if owner == "" {
				owner = l.Say("somebody")
			}
			return notify.Text{
				Summary: l.Say("due-title", "n", minutes), Body: l.Say("due-body", "owner", owner, "time", p.At.Local().Format("15:04")),
				Labels: []string{l.Say("restart-now")},
			}
		},
	}, true
}

// fresh are the notices that were not told within a day; they count as told from now
// on. A clock that was set back doesn't silence them.
func (d *Device) fresh(all []notice) ([]notice, error) {
	var doc noticesDocument
	if err := d.Store.ReadDocument("notices", noticesSchema, &doc); err != nil && !errors.Is(err, store.ErrEmpty) {
		doc.Told = nil // the worst of it is one message too many
	}
	now := d.Now().UTC().Truncate(time.Second)
	told := make(map[string]time.Time)
	for key, at := range doc.Told {
		if now.Sub(at).Abs() < noticeAgain {
			told[key] = at
		}
	}
	var news []notice
	for _, n := range all {
		if _, known := told[n.key]; !known {
			told[n.key] = now
			news = append(news, n)
		}
	}
	if len(news) == 0 {
		return nil, nil
	}
	return news, d.Store.WriteDocument("notices", noticesDocument{noticesSchema, told})
}

// audience is who can be told something: the sessions of desktops, else terminals.
// With ui.mode "none" it is nobody: the journal and the history tell whoever runs
// this device.
func (d *Device) audience() (sessions []notify.Session, somebody bool) {
	switch d.Config.Policy.UIMode {
	case "none":
		return nil, false
	case "desktop":
		sessions = notify.Sessions(filepath.Join(d.Store.Root(), "run/user"))
	}
	return sessions, len(sessions) > 0 || len(terminals()) > 0
}

// watchNotices tells people what they should know, until ctx ends.
func (o *observer) watchNotices(ctx context.Context) {
	tick := time.NewTicker(noticeEvery)
	defer tick.Stop()
	showing := make(map[string]context.CancelFunc)
	var before string
	var looked time.Time
	for {
		if waits, err := o.waitsNow(); err == nil && (waits != before || waits != "" && time.Since(looked) > lookEvery) {
			before, looked = waits, time.Now()
			o.notices(ctx, showing)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// waitsNow is what waits, in a word that changes with it; "" for nothing.
func (o *observer) waitsNow() (string, error) {
	d, err := o.open()
	if err != nil {
		return "", err
	}
	waits := d.Store.SlotID(store.Next)
	if p, ok := d.plannedRestart(); ok && waits != "" {
		for _, c := range countdown {
			if p.At.Sub(d.Now()) <= c {
				waits += " " + c.String()
			}
		}
	}
	return waits, nil
}

// notices shows what is new, and takes from the screen what holds no longer.
func (o *observer) notices(ctx context.Context, showing map[string]context.CancelFunc) {
	d, err := o.open()
	if err != nil {
		return
	}
	if _, err := d.Store.Enrolment(); err != nil {
		return
	}
	all, err := d.notices(ctx)
	if err != nil {
		o.log.Info("cannot say what waits", "error", err)
		return
	}
	for key, stop := range showing {
		if !slices.ContainsFunc(all, func(n notice) bool { return n.key == key }) {
			stop()
			delete(showing, key)
		}
	}
	sessions, somebody := d.audience()
	if !somebody {
		return
	}
	news, err := d.fresh(all)
	if err != nil {
		o.log.Warn("cannot keep what was told", "error", err)
	}
	for _, n := range news {
		if len(sessions) == 0 {
			t := n.say(wording.Of(func(string) string { return "" }))
			o.toTerminals(t.Summary + "\n" + t.Body)
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		showing[n.key] = stop
		for _, s := range sessions {
			o.asking.Go(func() {
				if _, err := o.notifier.Show(ctx, s, notify.Message{Text: notify.Say(n.say), Actions: n.actions, Urgent: n.urgent}); err != nil && ctx.Err() == nil {
					o.log.Info("cannot show a message", "user", s.UID, "error", err)
				}
			})
		}
	}
}
