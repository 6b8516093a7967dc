package settings

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Times and limits of the door.
const (
	tokenFor   = 2 * time.Minute // between the address being made and its first use
	maxForm    = 16 << 10        // bytes of a request's body
	headerTime = 5 * time.Second
)

const cookie = "sealant-settings"

// gate lets in one browser of one person. See the package comment.
type gate struct {
	host string // the only Host that is answered: 127.0.0.1:PORT

	mu      sync.Mutex
	tokens  map[string]time.Time // of addresses that were not opened yet
	session string               // the cookie's value, "" before the first
	used    time.Time            // the last request that was let in
}

func secret() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// address makes an address that opens the page once.
func (g *gate) address(now time.Time) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	token := secret()
	g.tokens[token], g.used = now, now
	return "http://" + g.host + "/enter/" + token
}

// enter takes an address's token, and says what cookie to give for it.
func (g *gate) enter(token string, now time.Time) (session string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	made, ok := g.tokens[token]
	delete(g.tokens, token)
	if !ok || now.Sub(made) > tokenFor {
		return "", false
	}
	if g.session == "" {
		g.session = secret()
	}
	g.used = now
	return g.session, true
}

// admit says whether a request carries the cookie.
func (g *gate) admit(r *http.Request, now time.Time) bool {
	c, err := r.Cookie(cookie)
	if err != nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.session == "" || !equal(c.Value, g.session) {
		return false
	}
	g.used = now
	return true
}

// stamp is what a form carries, so that only this page's own forms count.
func (g *gate) stamp() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.session[:16]
}

func (g *gate) lastUsed() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used
}

// opened says whether the page was ever let open.
func (g *gate) opened() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.session != ""
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// ours reports whether a request is addressed to this page by this page: a name
// that somebody's DNS leads here is another Host, and another site's form has
// another Origin.
func (g *gate) ours(r *http.Request) bool {
	if r.Host != g.host {
		return false
	}
	if site := r.Header.Get("Sec-Fetch-Site"); r.Method != http.MethodGet && site != "" && site != "same-origin" {
		return false
	}
	origin := r.Header.Get("Origin")
	return origin == "http://"+g.host || origin == "" && r.Method == http.MethodGet
}

type strangerKey struct{}

// markStrangers notes for each connection whether it comes from another user.
func markStrangers(uid uint32) func(context.Context, net.Conn) context.Context {
	return func(ctx context.Context, c net.Conn) context.Context {
		owner, err := ownerOf(c)
		if err != nil || owner != uid {
			return context.WithValue(ctx, strangerKey{}, true)
		}
		return ctx
	}
}

func stranger(r *http.Request) bool { return r.Context().Value(strangerKey{}) != nil }

// protect is what stands before every page.
func (g *gate) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "same-origin") // with "no-referrer" forms would have the Origin "null"
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if stranger(r) || !g.ours(r) {
			h.Set("Connection", "close") // it takes no room either
			http.Error(w, "not for you", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		next.ServeHTTP(w, r)
	})
}

// open answers the address that opens the page. The page after it is fetched by a
// refresh and not by a redirect: a browser that was led here from elsewhere doesn't
// send a strict cookie along with a redirect.
func (g *gate) open(w http.ResponseWriter, r *http.Request, page func(http.ResponseWriter, bool)) {
	session, ok := g.enter(strings.TrimPrefix(r.URL.Path, "/enter/"), time.Now())
	if ok {
		http.SetCookie(w, &http.Cookie{Name: cookie, Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	} else {
		ok = g.admit(r, time.Now()) // the address was opened again, by the same browser
	}
	if !ok {
		w.WriteHeader(http.StatusForbidden)
	}
	page(w, ok)
}

// listen opens the loopback port.
func listen() (net.Listener, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot serve the settings page: %w", err)
	}
	return l, nil
}
