package journal

import "strings"

// Event says what happened. Those of the history have the history's names
// (spec/state.md).
type Event string

// The events. spec/journal.md has the table with the MESSAGE_ID of each.
const (
	Enrolled        Event = "enrolled"
	Baseline        Event = "baseline"
	Available       Event = "available"
	Waiting         Event = "waiting"
	Staged          Event = "staged"
	Booted          Event = "booted"
	Confirmed       Event = "confirmed"
	BootFailed      Event = "boot-failed"
	Relaunched      Event = "relaunched"
	RestartPlanned  Event = "restart-planned"
	Restarting      Event = "restarting"
	Removed         Event = "removed"
	RemoveCancelled Event = "remove-cancelled"
	Reapplied       Event = "reapplied"
	Recalled        Event = "recalled"
	Damaged         Event = "damaged"
	Repaired        Event = "repaired"
	Denied          Event = "denied"
	Audited         Event = "audited"
	Crashed         Event = "crashed"
	Recommended     Event = "recommended"
	Answered        Event = "recommendation-answered"
	AutomaticOn     Event = "automatic-on"
	AutomaticOff    Event = "automatic-off"
	AnalyticsOn     Event = "analytics-on"
	AnalyticsOff    Event = "analytics-off"
	Recovered       Event = "recovered"
	StartedOver     Event = "started-over"
	Distrusted      Event = "distrusted"
	Failed          Event = "failed" // also every JOURNEY-failed
)

// Priority is syslog's.
type Priority int

// The priorities that events have.
const (
	Err     Priority = 3
	Warning Priority = 4
	Notice  Priority = 5
	Info    Priority = 6
)

// kind is what all entries of one event share.
type kind struct {
	event    Event
	id       string // MESSAGE_ID: 128 random bits, never used for anything else
	priority Priority
	subject  string // the catalogue's title
	text     string // the catalogue's explanation
}

var kinds = []kind{
	{
		Enrolled, "5dc4fcf2c59a47eb8c05ed34a7c0c82a", Notice, "This device was enrolled",
		"The device has an identity with the server and a ticket for its baseline.\nImprovements can be authorised for it from now on.",
	},
	{
		Baseline, "98fe3bce95064fb3abae90d0708e1010", Notice, "The operating system brought a new baseline",
		"A software update has replaced the cryptexes that improvements are made for.\nImprovements for the one before are inert and are tidied away.",
	},
	{
		Available, "9fcc53730aa447e299746d7b423cc222", Info, "Improvement @SEALANT_RELEASE@ is available",
		"The vendor has published it for this device. See: sealant check --why",
	},
	{
		Waiting, "eb9bcd0cac964cdb97315bfa6f233369", Info, "Improvement @SEALANT_RELEASE@ waits",
		"It is not installed now because of: @SEALANT_REASON@.\nIt is tried again by itself. See: sealant check --why",
	},
	{
		Staged, "15d4c2b1407f4803b5dacbdaa13680c4", Notice, "Improvement @SEALANT_RELEASE@ is staged",
		"Its images are authorised, sealed and checked. Nothing that runs was changed:\nrelaunched apps use it now, everything else after a restart.\nSee: sealant status",
	},
	{
		Booted, "fe3386aab4b6468f83c17d74eb72df01", Info, "The system started with @SEALANT_TO@",
		"Every image was verified before it was used.",
	},
	{
		Confirmed, "ad0fecb069c5451a8f7d5bbc6bab19f2", Notice, "The system came up with @SEALANT_RELEASE@",
		"The boot was confirmed; the ticket before is worth nothing any more.",
	},
	{
		BootFailed, "c984a6b538764011b126dd3213aedce6", Err, "The system could not start with @SEALANT_RELEASE@",
		"It started with what it had before. The improvement is held until a newer one\ncomes or somebody runs: sealant reapply\nReason: @SEALANT_REASON@",
	},
	{
		Relaunched, "7aa0289d39224760b3ffe7b2eefa7b0d", Info, "@SEALANT_APP@ was relaunched",
		"It uses the staged content now. See: sealant ps",
	},
	{
		RestartPlanned, "4a8e959a26cf44ef99dcfc964bead354", Warning, "Policy restarts this device soon",
		"A restart completes an improvement. It is due in 15 minutes and can be done\nearlier: sealant restart",
	},
	{
		Restarting, "fd7b0fa5041d4ab1b74f887593026388", Notice, "This device restarts to complete @SEALANT_TO@",
		"Who asked: @SEALANT_ACTOR@.",
	},
	{
		Removed, "4a1923dac01e41609ea44300d9950d2a", Warning, "All improvements were removed",
		"The device goes back to its baseline; a restart completes it. Flaws that were\nfixed are open again. Who asked: @SEALANT_ACTOR@. Back again: sealant reapply",
	},
	{
		RemoveCancelled, "da1879eb56cd4cfbb6fec852e9881918", Notice, "The removal was cancelled",
		"The improvements stay. Who asked: @SEALANT_ACTOR@.",
	},
	{
		Reapplied, "686dd6d691264eceaed74719c21efda8", Notice, "Improvement @SEALANT_RELEASE@ was put back",
		"Without a download, with a fresh ticket. Who asked: @SEALANT_ACTOR@.",
	},
	{
		Recalled, "81691347f8a041868626d5a7469cb95f", Warning, "The vendor took improvement @SEALANT_RELEASE@ back",
		"The device goes back to the improvement before; a restart completes it. The\nreason is in the message; a corrected improvement will follow.",
	},
	{
		Damaged, "0c557e7180784d448551cf8c7a2c00a3", Err, "Content on this disk does not have its seal",
		"A block could not be read or was changed. It is not used. The improvement is not\nat fault: repair the content by sealant install, and look after the disk.",
	},
	{
		Repaired, "71b1f06b10274b0391c8be6a64884389", Notice, "Damaged content was repaired",
		"The images have their seals again.",
	},
	{
		Denied, "9286d3d07d744ba7ab487624bee1282b", Warning, "Execution of an unlisted file was refused",
		"The file lies in a cryptex whose trust cache does not list it, or @SEALANT_APP@ may\nrun only sealed content. See: sealant doctor",
	},
	{
		Audited, "74c6f4f7b71542ccb179640a63331d64", Info, "Execution of an unlisted file was seen",
		"In enforcing mode it would have been refused. See: sealant doctor",
	},
	{
		Crashed, "2f58a61e14664f5eb5384b1f25dac02f", Info, "@SEALANT_APP@ crashed",
		"It was counted for the content it ran with. See: sealant evidence",
	},
	{
		Recommended, "78ed6895a8964d668d2f340d68ab89be", Warning, "@SEALANT_APP@ crashes more often since @SEALANT_RELEASE@",
		"The vendor lists the app, and this device's own counts say so too. Nothing is\nremoved by itself: a person decides. See: sealant evidence",
	},
	{
		Answered, "59237ccd35ae4ce99d5c3420c96c5659", Notice, "A person answered the question about @SEALANT_APP@",
		"Answer: @SEALANT_REASON@. Who: @SEALANT_ACTOR@.",
	},
	{AutomaticOn, "878df40097e446b599d12f24f0f3d9b2", Notice, "Automatic installation was switched on", "Who: @SEALANT_ACTOR@."},
	{
		AutomaticOff, "9ba2881cb2144f2b82629021d3049aee", Notice, "Automatic installation was switched off",
		"This device gets improvements with a later software update. Who: @SEALANT_ACTOR@.",
	},
	{
		AnalyticsOn, "ed271a81e0924eddb7b7f3467f18cc82", Notice, "A person agreed to share analytics",
		"It counts from the next day. See: sealant analytics preview. Who: @SEALANT_ACTOR@.",
	},
	{
		AnalyticsOff, "59d67f242ba74c6485021283d481b892", Notice, "Analytics are no longer shared",
		"What waited to be sent was thrown away. Who: @SEALANT_ACTOR@.",
	},
	{
		Recovered, "2cd99f4c1df64facbdd753de5f42a782", Warning, "An interrupted change was finished or undone",
		"Power was cut or a program was killed. What came of it: @SEALANT_REASON@.",
	},
	{
		StartedOver, "ae89f7db6079447d9bae5827121ce71b", Err, "State of an older day was refused",
		"The device starts over from its baseline with new nonces.",
	},
	{
		Distrusted, "269d56d339a24cc998421b2d4794b2df", Err, "Something that the server said was refused",
		"A signature, a ticket, the catalog's age or the public log did not hold. Nothing\nwas changed. Reason: @SEALANT_REASON@. See: sealant verify",
	},
	{
		Failed, "6c605822deba45d7b1c9ca8899a43a75", Warning, "It did not work: @SEALANT_EVENT@",
		"Everything is as it was before. Reason: @SEALANT_REASON@.",
	},
}

// kindOf finds what entries of an event share. One without an entry of its own,
// as install-failed, is a failure.
func kindOf(e Event) kind {
	for _, k := range kinds {
		if k.event == e {
			return k
		}
	}
	k := kinds[len(kinds)-1]
	if !strings.HasSuffix(string(e), "-failed") {
		k.priority = Info
	}
	k.event = e
	return k
}

// ID is an event's MESSAGE_ID.
func (e Event) ID() string { return kindOf(e).id }

// Catalog is systemd's message catalogue of the events, for journalctl -x.
func Catalog() string {
	var b strings.Builder
	b.WriteString("# Sealant's events for journalctl -x; installed as /usr/lib/systemd/catalog/sealant.catalog.\n")
	for _, k := range kinds {
		b.WriteString("\n-- " + k.id + "\nSubject: " + k.subject + "\nDefined-By: Sealant\n\n" + k.text + "\n")
	}
	return b.String()
}
