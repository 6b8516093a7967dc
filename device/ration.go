package device

import (
	"sync"
	"time"
)

// How often those who aren't root may have the vendor asked for news: a check holds
// the lock while it asks, so that whoever checks without end would keep the agent,
// and an administrator, from installing.
const (
	rationMost  = 10 // at once
	rationEvery = 30 * time.Second
)

// ration is what is left of that. The zero value is full.
type ration struct {
	mu   sync.Mutex
	full time.Time // when it is full again
}

// take takes one, if there is one.
func (r *ration) take(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full.Before(now) {
		r.full = now
	}
	if r.full.Sub(now) > (rationMost-1)*rationEvery {
		return false
	}
	r.full = r.full.Add(rationEvery)
	return true
}
