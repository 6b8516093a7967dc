package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/notify"
	"github.com/sealant-os/sealant/device/wording"
)

// lookAgain is how often a question on the screen is compared with the state: it
// may be answered elsewhere, or be withdrawn.
const lookAgain = 2 * time.Second

// ask shows a question where a person is: on the desktop of everybody who is logged
// in, else on terminals. The first answer counts; it waits until there is one, or
// until the question is gone.
func (o *observer) ask(ctx context.Context, n evidence.Notice) {
	d, err := o.opener()()
	if err != nil {
		return
	}
	switch d.Config.Policy.UIMode {
	case "desktop":
		if o.askSessions(ctx, n, notify.Sessions(filepath.Join(d.Store.Root(), "run/user"))) {
			return
		}
		fallthrough
	case "tty":
		l := wording.Of(os.Getenv) // nobody knows who reads which terminal
		o.toTerminals(n.In(l) + "\n" + l.Say("answer-on-terminal"))
	}
}

// askSessions shows a question in every session, and does what is chosen first. It
// reports whether any session could show it.
func (o *observer) askSessions(ctx context.Context, n evidence.Notice, sessions []notify.Session) (shown bool) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	type reply struct {
		session notify.Session
		chosen  string
		err     error
	}
	message := notify.Message{
		Text: notify.Say(func(l *wording.Language) notify.Text {
			return notify.Text{
				Summary: l.Say("advice-title", "app", n.Name), Body: n.In(l), Labels: []string{l.Say("keep"), l.Say("remove-restart-ask")},
			}
		}),
		Actions: []notify.Action{{Key: string(evidence.Keep)}, {Key: string(evidence.Remove)}}, Urgent: true,
	}
	replies := make(chan reply, len(sessions))
	for _, s := range sessions {
		message := message
		if o.elsewhere(s) {
			message.Actions = []notify.Action{{Key: string(evidence.Keep)}, {Key: string(evidence.Remove), Run: o.settings()}}
		}
		go func() {
			chosen, err := o.notifier.Show(ctx, s, message)
			replies <- reply{s, chosen, err}
		}()
	}
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	answered := false
	for left := len(sessions); left > 0; {
		select {
		case r := <-replies:
			left--
			if r.err != nil {
				if ctx.Err() == nil {
					o.log.Info("cannot show a question", "user", r.session.UID, "error", r.err)
				}
				continue
			}
			shown = true
			if r.chosen == string(evidence.Remove) && o.elsewhere(r.session) {
				continue // the settings page asks, and takes the answer
			}
			if r.chosen != notify.Closed && !answered {
				answered = true
				o.chose(ctx, r.session, evidence.Answer(r.chosen))
				stop()
			}
		case <-look.C:
			if !o.waits(n) {
				shown = true
				stop()
			}
		}
	}
	return shown
}

// elsewhere says whether a session's person needs more than a button to remove
// improvements, and has where to be asked for it: on the settings page.
func (o *observer) elsewhere(s notify.Session) bool {
	d, err := o.opener()()
	if err != nil || d.mayRemoveAsUser(s.UID) == nil || !d.Config.Policy.RemoveAllowUser {
		return false
	}
	_, err = exec.LookPath("xdg-open")
	return err == nil
}

// settings opens the settings page with its question.
func (o *observer) settings() []string {
	d, err := o.opener()()
	if err != nil {
		return []string{"settings", "--remove"}
	}
	return d.self("settings", "--remove")
}

// waits says whether a question still waits for its answer.
func (o *observer) waits(n evidence.Notice) bool {
	d, err := o.opener()()
	if err != nil {
		return true
	}
	p, err := d.prompts()
	if err != nil {
		return true
	}
	now, ok := p.Pending()
	return ok && now.Release == n.Release && now.Time.Equal(n.Time)
}

// chose does what a person in a session has chosen, as far as that person may.
func (o *observer) chose(ctx context.Context, s notify.Session, a evidence.Answer) {
	ctx = context.WithoutCancel(ctx) // the question goes away now, what it started goes on
	d, err := o.opener()()
	if err != nil {
		o.log.Warn("cannot do what was chosen", "error", err)
		return
	}
	events := logged(o.log, "evidence")
	if a == evidence.Remove {
		told := plainMessage("removed-title", "removed-body")
		err := d.mayRemoveAsUser(s.UID)
		if err == nil {
			_, err = d.Remove(ctx, RemoveOptions{}, User(s.UID), events)
		}
		if err != nil {
			told = plainMessage("not-removed-title", "not-removed-body", "reason", upper(err.Error()))
		}
		o.asking.Go(func() { _, _ = o.notifier.Show(ctx, s, told) })
		if err != nil {
			return // the question goes on waiting for somebody who may
		}
	}
	if _, err := d.Answer(ctx, AnswerOptions{Answer: a}, User(s.UID), events); err != nil {
		o.log.Warn("cannot take the answer", "error", err)
	}
}

// plainMessage is a message without buttons.
func plainMessage(title, body string, values ...any) notify.Message {
	return notify.Message{Text: notify.Say(func(l *wording.Language) notify.Text {
		return notify.Text{Summary: l.Say(title, values...), Body: l.Say(body, values...)}
	})}
}

// upper begins a sentence.
func upper(s string) string {
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		return string(s[0]-'a'+'A') + s[1:]
	}
	return s
}

func (o *observer) toTerminals(text string) {
	if err := onTerminals(text); err != nil {
		o.log.Warn("cannot write to terminals", "error", err)
	}
}

// terminals are those whose users take messages (mesg y).
func terminals() []string {
	all, err := filepath.Glob("/dev/pts/[0-9]*")
	if err != nil {
		return nil // a pattern that is always good
	}
	return slices.DeleteFunc(all, func(path string) bool {
		fi, err := os.Stat(path)
		return err != nil || fi.Mode()&os.ModeCharDevice == 0 || fi.Mode().Perm()&0o020 == 0
	})
}

// onTerminals writes a message to every terminal whose user takes messages, as wall
// does.
func onTerminals(text string) error {
	var errs []error
	for _, path := range terminals() {
		t, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue // gone, or not to be written to
		}
		_, err = fmt.Fprintf(t, "\r\n%s\r\n", text)
		errs = append(errs, err, t.Close())
	}
	return errors.Join(errs...)
}
