package server

import (
	"crypto/sha256"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxKept bounds what the two tables below hold in memory, in entries of one
// generation.
const maxKept = 1 << 20

// seen remembers signatures for as long as they could be sent again. It keeps
// two generations: one is forgotten when the other has lived through the whole
// window.
type seen struct {
	window time.Duration

	mu       sync.Mutex
	now, old map[[16]byte]struct{}
	turned   time.Time
}

func newSeen(window time.Duration) *seen {
	return &seen{window: window, now: map[[16]byte]struct{}{}}
}

// again tells whether a signature was seen in the window, and remembers it.
func (s *seen) again(signature string, at time.Time) bool {
	sum := sha256.Sum256([]byte(signature))
	key := [16]byte(sum[:16])
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := at.Sub(s.turned); d >= s.window || len(s.now) >= maxKept {
		s.old, s.now, s.turned = s.now, map[[16]byte]struct{}{}, at
		if d >= 2*s.window {
			s.old = nil
		}
	}
	if _, ok := s.now[key]; ok {
		return true
	}
	if _, ok := s.old[key]; ok {
		return true
	}
	s.now[key] = struct{}{}
	return false
}

// limits hands out a number of requests per time to each of many askers, whom
// it forgets when they have been quiet.
type limits[K comparable] struct {
	every time.Duration // one request more after so long
	burst int

	mu       sync.Mutex
	now, old map[K]*rate.Limiter
	turned   time.Time
}

func newLimits[K comparable](every time.Duration, burst int) *limits[K] {
	return &limits[K]{every: every, burst: burst, now: map[K]*rate.Limiter{}}
}

// wait is how long an asker must wait before its request, 0 if it may go on.
func (l *limits[K]) wait(who K, at time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Who was quiet for the time in which a whole burst grows back has lost
	// nothing by being forgotten.
	if life := l.every * time.Duration(l.burst); at.Sub(l.turned) >= life || len(l.now) >= maxKept {
		l.old, l.now, l.turned = l.now, map[K]*rate.Limiter{}, at
	}
	lim, ok := l.now[who]
	if !ok {
		if lim, ok = l.old[who]; !ok {
			lim = rate.NewLimiter(rate.Every(l.every), l.burst)
		}
		l.now[who] = lim
	}
	r := lim.ReserveN(at, 1)
	d := r.DelayFrom(at)
	if d > 0 {
		r.CancelAt(at)
	}
	return d
}
