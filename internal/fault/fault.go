// Package fault gives every failure of Sealant a kind, and every kind one exit
// code. It is the only place in the code where exit codes stand.
//
// There are three families (see CONTRIBUTING.md): refused (stop, keep the old
// state, report), unsupported (the machine lacks a feature) and temporary
// (try again). A package returns an *Error where it knows the kind; any other
// error counts as Failed. Messages read "cannot …: cause", in lower case and
// in the user's words; a hint names the next step.
package fault

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. The zero Kind is Failed.
type Kind uint8

// The kinds, in the order of their exit codes.
const (
	Failed       Kind = iota // anything without a kind of its own
	Usage                    // the command line is wrong
	Available                // no failure: an improvement is available
	Relaunch                 // no failure: an app must be relaunched
	Restart                  // no failure: the device must be restarted
	NotEligible              // this improvement is not for this device
	Policy                   // policy forbids it
	Waiting                  // battery, metered network or window; will go on by itself
	Refused                  // the signing service refused to authorise
	Ticket                   // a ticket does not verify
	Seal                     // content does not have the digest or seal it must have
	Stale                    // trust data is expired, rolled back, or not verifiable
	Unreachable              // the server did not answer
	Recalled                 // the vendor took the improvement back
	Undetermined             // not enough information for a verdict
	Busy                     // another change is under way, here or at the server
)

// kinds is the table of exit codes: --help and the man pages print it.
var kinds = [...]struct {
	code int
	name string
	text string
}{
	Failed:       {1, "failed", "failed"},
	Usage:        {2, "usage", "wrong usage"},
	Available:    {10, "available", "an improvement is available"},
	Relaunch:     {11, "relaunch", "an app must be relaunched"},
	Restart:      {12, "restart", "the device must be restarted"},
	NotEligible:  {20, "not-eligible", "not eligible on this device"},
	Policy:       {21, "policy", "forbidden by policy"},
	Waiting:      {22, "waiting", "waiting for battery, network or window"},
	Refused:      {30, "refused", "authorisation refused"},
	Ticket:       {31, "ticket-invalid", "a ticket is not valid"},
	Seal:         {32, "seal-mismatch", "content does not match its seal or digest"},
	Stale:        {33, "stale", "trust data is stale or rolled back"},
	Unreachable:  {40, "unreachable", "the server can't be reached"},
	Recalled:     {41, "recalled", "the improvement was recalled"},
	Undetermined: {42, "undetermined", "not enough information"},
	Busy:         {50, "busy", "another change is under way"},
}

// ExitCode is the process exit code of the kind.
func (k Kind) ExitCode() int { return kinds[k].code }

// String is the kind's stable name, as it stands in --json output and in the
// journal's SEALANT_REASON.
func (k Kind) String() string { return kinds[k].name }

// Text says in a few words what the exit code means.
func (k Kind) Text() string { return kinds[k].text }

// Kinds lists every kind in the order of the exit codes.
func Kinds() []Kind {
	all := make([]Kind, len(kinds))
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// Parse finds a kind by its stable name; unknown names are Failed, so that a
// newer peer's kind degrades to a plain failure.
func Parse(name string) Kind {
	for i := range kinds {
		if kinds[i].name == name {
			return Kind(i)
		}
	}
	return Failed
}

// Error is a failure of a known kind.
type Error struct {
	kind  Kind
	cause error
	hint  string
}

// New makes an error as fmt.Errorf does (%w included) and gives it a kind.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{kind: kind, cause: fmt.Errorf(format, args...)}
}

// Hint adds the next step a person can take, and returns the same error.
func (e *Error) Hint(format string, args ...any) *Error {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) Error() string { return e.cause.Error() }

// Unwrap returns the error that the kind was given to.
func (e *Error) Unwrap() error { return e.cause }

// KindOf is the kind of the outermost *Error in the chain, Failed if none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.kind
	}
	return Failed
}

// HintOf is the first hint in the chain, "" if none.
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.hint != "" {
			return e.hint
		}
		err = e.cause
	}
	return ""
}

// ExitCode is the exit code for an error: 0 for nil.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	return KindOf(err).ExitCode()
}

// Unsupported reports a feature that this machine lacks, and the kernel that
// brings it. A test may skip on it, but must fail if the running kernel is not
// older than Kernel.
type Unsupported struct {
	Feature string // what is missing, as a person would name it
	Kernel  string // the first Linux version that has it, "6.12"; "" if it is not a matter of version
}

func (u *Unsupported) Error() string {
	if u.Kernel == "" {
		return u.Feature + " is not supported here"
	}
	return fmt.Sprintf("%s is not supported here (needs Linux %s)", u.Feature, u.Kernel)
}
