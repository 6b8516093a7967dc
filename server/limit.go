package server

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxKept bounds what a memory holds, in entries of one generation.
const maxKept = 1 << 20

// memory keeps values for a while, and forgets those that nobody asked for: of
// two generations the older is dropped when the younger has lived or is full.
// It needs a lock around it.
type memory[K comparable, V any] struct {
	most     int // entries of one generation; maxKept where 0
	now, old map[K]V
	turned   time.Time
}

// turn begins a new generation if it is time to.
func (m *memory[K, V]) turn(at time.Time, life time.Duration) {
	age := at.Sub(m.turned)
	if m.now != nil && age < life && len(m.now) < or(m.most, maxKept) {
		return
	}
	m.old, m.now, m.turned = m.now, map[K]V{}, at
	if age >= 2*life {
		m.old = nil
	}
}

// get finds a value, and keeps it for another generation.
func (m *memory[K, V]) get(k K) (V, bool) {
	v, ok := m.now[k]
	if !ok {
		if v, ok = m.old[k]; ok {
			m.now[k] = v
		}
	}
	return v, ok
}

// seen remembers signatures for as long as they could be sent again.
type seen struct {
	window time.Duration

	mu   sync.Mutex
	kept memory[[16]byte, struct{}]
}

func newSeen(window time.Duration) *seen { return &seen{window: window} }

// again tells whether an act of signing (identity.Signature.Once) was seen in
// the window, and remembers it.
func (s *seen) again(once [32]byte, at time.Time) bool {
	key := [16]byte(once[:16])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept.turn(at, s.window)
	if _, ok := s.kept.get(key); ok {
		return true
	}
	s.kept.now[key] = struct{}{}
	return false
}

// limits hands out a number of requests per time to each of many askers, whom
// it forgets when they have been quiet for as long as a whole burst takes to
// grow back.
type limits[K comparable] struct {
	every time.Duration // one request more after so long
	burst int

	mu   sync.Mutex
	kept memory[K, *rate.Limiter]
}

func newLimits[K comparable](every time.Duration, burst int) *limits[K] {
	return &limits[K]{every: every, burst: burst}
}

// wait is how long an asker must wait before its request, 0 if it may go on.
func (l *limits[K]) wait(who K, at time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept.turn(at, l.every*time.Duration(l.burst))
	lim, ok := l.kept.get(who)
	if !ok {
		lim = rate.NewLimiter(rate.Every(l.every), l.burst)
		l.kept.now[who] = lim
	}
	r := lim.ReserveN(at, 1)
	d := r.DelayFrom(at)
	if d > 0 {
		r.CancelAt(at)
	}
	return d
}
