package device

import (
	"context"

	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/settings"
	"github.com/sealant-os/sealant/device/wording"
	"github.com/sealant-os/sealant/internal/fault"
)

// page does what is asked for on a settings page.
type page struct {
	root     string
	relaunch func(context.Context, string) error
}

// do does one thing and says what came of it.
func (p page) do(ctx context.Context, a settings.Action, value string, l *wording.Language) (string, error) {
	ask := func(journey string, params, result any) error { return Ask(ctx, p.root, journey, params, nil, result) }
	on := value == "on"
	switch a {
	case settings.Automatic:
		return switched(l, "automatic", on), ask("automatic", AutomaticOptions{on}, &AutomaticOptions{})
	case settings.Share:
		return switched(l, "share", on), ask("share", ShareOptions{On: on}, &Analytics{})
	case settings.Paired:
		return switched(l, "share-paired", on), ask("share", ShareOptions{Paired: true, On: on}, &Analytics{})
	case settings.Relaunch:
		return p.relaunchApp(ctx, value, l)
	case settings.Restart:
		return l.Say("restarting"), ask("restart", RestartOptions{}, &Restarted{})
	case settings.Remove:
		return p.remove(ask, l)
	case settings.Cancel:
		return l.Say("removal-cancelled"), ask("remove", RemoveOptions{Cancel: true}, &Removed{})
	case settings.Reapply:
		var r Installed
		err := ask("reapply", ReapplyOptions{}, &r)
		return l.Say("reapplied", "name", r.Name), err
	case settings.Keep:
		return l.Say("kept"), ask("answer", AnswerOptions{Answer: evidence.Keep}, &Question{})
	case settings.Repair:
		return l.Say("repaired"), ask("install", InstallOptions{}, &Installed{})
	}
	return "", fault.New(fault.Usage, "cannot do %q: there is no such thing", a)
}

// switched says how a switch stands.
func switched(l *wording.Language, what string, on bool) string {
	if on {
		return l.Say("switched-on", "what", l.Say(what))
	}
	return l.Say("switched-off", "what", l.Say(what))
}

func (p page) relaunchApp(ctx context.Context, id string, l *wording.Language) (string, error) {
	d, err := Open(p.root)
	if err != nil {
		return "", err
	}
	name := d.appName(id)
	if _, ok := d.Config.App(id); !ok {
		return "", fault.New(fault.Usage, "cannot relaunch %q: there is no such app", id)
	}
	switch err := p.relaunch(ctx, id); fault.KindOf(err) {
	case fault.Restart, fault.Relaunch:
		return l.Say("relaunch-remains", "app", name), nil
	default:
		return l.Say("relaunched", "app", name), err
	}
}

// remove removes all improvements, takes the answer to the question if one waits,
// and restarts if that completes it.
func (p page) remove(ask func(string, any, any) error, l *wording.Language) (string, error) {
	var before settings.View
	if err := ask("settings", struct{}{}, &before); err != nil {
		return "", err
	}
	var r Removed
	if err := ask("remove", RemoveOptions{}, &r); err != nil {
		return "", err
	}
	if before.Question != nil {
		if err := ask("answer", AnswerOptions{Answer: evidence.Remove}, &Question{}); err != nil {
			return "", err
		}
	}
	if !r.Restart {
		return l.Say("removed-done"), nil
	}
	return l.Say("restarting"), ask("restart", RestartOptions{}, &Restarted{})
}
