package settings

import "fmt"

// toggle is what the template of a switch gets.
type toggle struct {
	Stamp, Action, Name, Help, At string
	Switch                        Switch
}

// Toggle is one of the page's switches.
func (h home) Toggle(action string, s Switch, name, help string) toggle {
	return toggle{h.Stamp, action, name, help, h.At, s}
}

// button is what the template of a button gets.
type button struct {
	Stamp, Action, Value, Class, Text, Label string
}

// Button is a form with nothing but a button. The label is for those who don't see
// what it stands beside.
func (h home) Button(action, value, class, text, label string) (button, error) {
	if !actions[Action(action)] {
		return button{}, fmt.Errorf("no action %q", action)
	}
	return button{h.Stamp, action, value, class, text, label}, nil
}
