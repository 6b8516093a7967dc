package main

import (
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

// ask has a journey done, by the agent or by this process, shows its progress
// on stderr, and returns its result.
func ask[R any](cmd *cobra.Command, journey string, options any) (R, error) {
	var result R
	w := &watch{screen: cli.For(cmd)}
	defer w.end()
	err := device.Ask(cmd.Context(), rootOf(cmd), journey, options, w.event, &result)
	return result, err
}

// rootOf is the folder that the device's file system starts in.
func rootOf(cmd *cobra.Command) string {
	root, err := cmd.Flags().GetString("root")
	if err != nil {
		return "/"
	}
	return root
}

// none are the options of a journey that has none.
type none struct{}

// watch shows a journey's events as they come.
type watch struct {
	mu     sync.Mutex
	screen *cli.Screen
	step   string
	bar    *cli.Progress
}

func (w *watch) event(e device.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Kind == device.Progress {
		if w.bar == nil || w.step != e.Step {
			w.stop()
			w.bar, w.step = w.screen.Progress(e.Step, e.Total), e.Step
		}
		w.bar.Set(e.Done, e.Total)
		return
	}
	w.stop()
	text := plain(w.screen, e.Text)
	switch e.Kind {
	case device.Finished:
		w.screen.Notef("%s %-11s %s\n", w.screen.Good(), e.Step, text)
	case device.Warning:
		w.screen.Notef("%s %s\n", w.screen.Warn(), text)
	case device.Note:
		w.screen.Notef("%s\n", text)
	}
}

func (w *watch) stop() {
	if w.bar != nil {
		w.bar.End()
		w.bar = nil
	}
}

func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop()
}

// plain is a text as the screen's character set can show it.
func plain(s *cli.Screen, text string) string {
	if s.UTF8 {
		return text
	}
	return strings.NewReplacer("·", "-", "…", "..", "≥", ">=", "–", "-", "→", "->", "›", ">").Replace(text)
}

// printf prints data for people, in the screen's character set.
func printf(s *cli.Screen, format string, args ...any) {
	s.Printf("%s", plain(s, sprintf(format, args...)))
}
