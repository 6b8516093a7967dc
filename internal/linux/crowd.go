package linux

import "sync"

// Crowd bounds how many callers of a socket are served at once: of each user, and
// of all together, since one person may have many user ids. Root is never turned
// away. A Crowd must not be copied after its first use.
type Crowd struct {
	Each, All int

	mu   sync.Mutex
	here map[int]int // by user
	all  int         // without root's
}

// Enter takes a place for a user, if there is one. leave gives it back; it does so
// once, however often it is called.
func (c *Crowd) Enter(uid int) (leave func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if uid != 0 && (c.here[uid] >= c.Each || c.all >= c.All) {
		return nil, false
	}
	if c.here == nil {
		c.here = make(map[int]int)
	}
	c.count(uid, 1)
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.count(uid, -1)
	}), true
}

func (c *Crowd) count(uid, n int) {
	if c.here[uid] += n; c.here[uid] == 0 {
		delete(c.here, uid)
	}
	if uid != 0 {
		c.all += n
	}
}

// Empty says whether nobody is served.
func (c *Crowd) Empty() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.here) == 0
}
