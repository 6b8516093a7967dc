package settings

import (
	"time"

	"github.com/sealant-os/sealant/device/evidence"
)

// View is all that the page shows.
type View struct {
	Device string `json:"device"` // what people call this device
	Back   string `json:"back"`   // what it is without improvements: "ExampleOS 42.3"
	Vendor string `json:"vendor"` // "ExampleOS"

	Heard time.Time `json:"heard"` // when the vendor was last heard, zero for never
	Stale bool      `json:"stale"` // that is too long ago

	Automatic Switch `json:"automatic"`
	Share     Switch `json:"share"`
	Paired    Switch `json:"paired"`

	State     State     `json:"state"`
	Name      string    `json:"name"`      // of the improvement: "42.3 (b)"
	Label     string    `json:"label"`     // "(b)"
	Installed time.Time `json:"installed"` // zero if unknown
	Apps      []App     `json:"apps"`
	Restart   bool      `json:"restart"` // all that isn't an app gets it at a restart

	Removable bool   `json:"removable"` // there is something to remove
	Removal   Switch `json:"removal"`   // locked where policy forbids it
	Fixes     int    `json:"fixes"`     // that removal opens again
	Exploited int    `json:"exploited"` // of those against known attacks

	Question *evidence.Notice `json:"question"` // about an app that crashes, null for none
	Damaged  string           `json:"damaged"`  // the app whose content is damaged, "" for none
	Held     string           `json:"held"`     // an improvement that can be put back: "42.3 (b)"
	Recalled string           `json:"recalled"` // one that the vendor took back
}

// State is what holds for the improvement on this device.
type State string

// The states.
const (
	None       State = "none"
	Installed  State = "installed" // whether in use already, or only in part
	Removing   State = "removing"  // a restart finishes it
	Reverting  State = "reverting" // a recall; a restart finishes it
	Refused    State = "refused"   // it did not start
	Unenrolled State = "unenrolled"
)

// Switch is a setting that is on or off.
type Switch struct {
	On     bool   `json:"on"`
	Locked bool   `json:"locked"`
	Owner  string `json:"owner"` // who locked it, "" if the policy does not say
}

// App is an app that runs.
type App struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Active bool   `json:"active"` // uses the improvement
}

// Flaw is one that the improvement fixes.
type Flaw struct {
	ID, Text, Credit string
	Exploited        bool
	Active           []string // names of apps in which the fix is proven active
	Everywhere       bool
}

// Preview is what would be sent.
type Preview struct {
	On             bool
	To             string
	Waiting, Today []string // the exact bytes, each one request's body
}

// Action is what a person asked for.
type Action string

// The actions. Those that name an app or a switch's state have it as their value.
const (
	Automatic Action = "automatic" // on, off
	Share     Action = "share"     // on, off
	Paired    Action = "paired"    // on, off
	Relaunch  Action = "relaunch"  // an app's id
	Restart   Action = "restart"
	Remove    Action = "remove" // and restart
	Cancel    Action = "cancel" // a removal
	Reapply   Action = "reapply"
	Keep      Action = "keep" // the question's answer
	Repair    Action = "repair"
)

var actions = map[Action]bool{
	Automatic: true, Share: true, Paired: true, Relaunch: true, Restart: true, Remove: true, Cancel: true, Reapply: true, Keep: true, Repair: true,
}
