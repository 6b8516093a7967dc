package signing

import (
	"fmt"
	"time"
)

// Code is the stable reason for which no ticket was issued. Devices act on it;
// the words beside it are for people.
type Code string

// The codes.
const (
	Busy           Code = "busy"            // try again after Refusal.RetryAfter; nothing was decided
	Refused        Code = "refused"         // this device may not have this set
	NotInRing      Code = "not-in-ring"     // later, perhaps: the rollout has not reached this device
	UnknownDevice  Code = "unknown-device"  // enrol first
	Recalled       Code = "recalled"        // the vendor took this release back
	Clock          Code = "clock"           // the device's clock is wrong; the Date header says the server's time
	UnknownRelease Code = "unknown-release" // nothing of that name is published for this product and baseline
	BadRequest     Code = "bad-request"     // the request makes no sense
	BadToken       Code = "bad-token"       // the enrolment token does not admit this device
	BadSignature   Code = "bad-signature"   // the request was not signed by the device it names
	Replayed       Code = "replayed"        // this very request was answered before; sign a new one
)

// Codes lists every code.
func Codes() []Code {
	return []Code{Busy, Refused, NotInRing, UnknownDevice, Recalled, Clock, UnknownRelease, BadRequest, BadToken, BadSignature, Replayed}
}

// How long a device should wait when something of the server's own is in the way.
const (
	retryDatabase = 10 * time.Second
	retryCatalog  = 30 * time.Second
	retryLeaf     = 5 * time.Minute
)

// Refusal is an error that a device is told.
type Refusal struct {
	Code       Code
	Detail     string        // for people; says nothing that a stranger may not know
	RetryAfter time.Duration // with Busy

	cause error // for the operator's log only
}

func (r *Refusal) Error() string {
	if r.cause != nil {
		return fmt.Sprintf("%s: %s: %v", r.Code, r.Detail, r.cause)
	}
	return fmt.Sprintf("%s: %s", r.Code, r.Detail)
}

// Unwrap is what went wrong inside, for the operator's log; nil if nothing did.
func (r *Refusal) Unwrap() error { return r.cause }

func refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func busy(after time.Duration, cause error) *Refusal {
	return &Refusal{Code: Busy, Detail: "the server can't sign at the moment", RetryAfter: after, cause: cause}
}
