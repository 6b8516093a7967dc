// Package settings is the page on which a person sees and changes what Sealant does
// on this device, in a browser.
//
// Parties: the page is served by a process of the person's own, started by `sealant
// settings`, on a loopback port. That process has no rights: what is shown and done
// goes over the agent's socket, which knows by the kernel who asks, as for any other
// command. So the page can do exactly what that person may do on a terminal, and no
// process of root listens on a port.
//
// Who reaches the port, and what keeps them out:
//
//	another user of the machine   the kernel's owner of the connection's other end
//	another machine               the port is on 127.0.0.1
//	another web site              a strict cookie; Origin and Sec-Fetch-Site; a stamp in every form
//	a name that leads to 127.0.0.1 (DNS rebinding)   the Host must be the address and port
//	a frame, or a script put into the page           the Content-Security-Policy
//
// The cookie is given for a secret in the address, which works once. The page works
// without its script; that only keeps it up to date. It ends when it was not used for
// a while.
package settings

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"html/template"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/wording"
	"github.com/sealant-os/sealant/internal/fault"
)

//go:embed page
var files embed.FS

// idleEnd is how long the page waits for its next request: an open page asks every
// few seconds.
const idleEnd = 15 * time.Minute

// Page is a settings page. Its functions are called by one request at a time.
type Page struct {
	UID      uint32            // who may use it
	Language *wording.Language // what it speaks where the browser doesn't say
	Ask      Action            // the question that it opens with: Remove, Restart, or none

	View    func(context.Context) (View, error)
	Flaws   func(context.Context) (name string, flaws []Flaw, err error)
	Preview func(context.Context) (Preview, error)
	// Do does what was asked for and returns a sentence about it.
	Do func(ctx context.Context, a Action, value string, l *wording.Language) (string, error)

	gate     gate
	listener net.Listener

	mu    sync.Mutex // one request at a time
	note  string     // about what was done last, shown once
	wrong string     // what went wrong
}

// Open opens the port and returns the address that opens the page once. Serve must
// follow.
func (p *Page) Open() (address string, err error) {
	if p.listener, err = listen(); err != nil {
		return "", err
	}
	p.gate = gate{host: p.listener.Addr().String(), tokens: make(map[string]time.Time)}
	return p.gate.address(time.Now()), nil
}

// Serve serves until ctx ends or nobody has used the page for a while.
func (p *Page) Serve(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	srv := &http.Server{
		Handler: p.gate.protect(p.routes()), ReadHeaderTimeout: headerTime, IdleTimeout: tokenFor, MaxHeaderBytes: 16 << 10,
		ConnContext: markStrangers(p.UID), BaseContext: func(net.Listener) context.Context { return ctx },
	}
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				srv.Close()
				return
			case <-tick.C:
				if idle := time.Since(p.gate.lastUsed()); idle > idleEnd || idle > tokenFor && !p.gate.opened() {
					stop()
				}
			}
		}
	}()
	if err := srv.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (p *Page) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /enter/", func(w http.ResponseWriter, r *http.Request) {
		p.gate.open(w, r, func(w http.ResponseWriter, ok bool) {
			name := "closed"
			if ok {
				name = "opening"
			}
			p.render(w, r, name, p.Ask)
		})
	})
	mux.HandleFunc("GET /style.css", asset("page/style.css", "text/css; charset=utf-8"))
	mux.HandleFunc("GET /page.js", asset("page/page.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /{$}", p.member(p.home))
	mux.HandleFunc("GET /fixed", p.member(p.fixed))
	mux.HandleFunc("GET /preview", p.member(p.preview))
	mux.HandleFunc("POST /do", p.member(p.do))
	return mux
}

func asset(name, kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		http.ServeFileFS(w, r, files, name)
	}
}

// member lets in whoever has the cookie, one at a time.
func (p *Page) member(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !p.gate.admit(r, time.Now()) {
			w.WriteHeader(http.StatusForbidden)
			p.render(w, r, "closed", nil)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		f(w, r)
	}
}

// home is what the first page's template gets.
type home struct {
	View
	Stamp, Note, Wrong string
	Ask                string // the dialog that is open: remove, restart, or ""
	At                 string // the control that gets the focus
	Now                time.Time
}

func (p *Page) home(w http.ResponseWriter, r *http.Request) {
	h := home{Stamp: p.gate.stamp(), At: r.FormValue("at"), Now: time.Now()}
	if r.Header.Get("Sec-Fetch-Dest") != "empty" { // not the script, looking for news
		h.Note, h.Wrong, p.note, p.wrong = p.note, p.wrong, "", ""
	}
	var err error
	if h.View, err = p.View(r.Context()); err != nil {
		h.Wrong = sentence(err)
	}
	if ask := r.FormValue("ask"); ask == "remove" && h.Removable && !h.Removal.Locked || ask == "restart" && h.Finishes() {
		h.Ask = ask
	}
	p.render(w, r, "home", h)
}

// Finishes says whether a restart would finish something.
func (v View) Finishes() bool { return v.Restart || v.State == Removing || v.State == Reverting }

func (p *Page) fixed(w http.ResponseWriter, r *http.Request) {
	name, flaws, err := p.Flaws(r.Context())
	p.render(w, r, "fixed", struct {
		Name, Wrong string
		Flaws       []Flaw
	}{name, sentence(err), flaws})
}

func (p *Page) preview(w http.ResponseWriter, r *http.Request) {
	v, err := p.Preview(r.Context())
	p.render(w, r, "preview", struct {
		Preview
		Wrong string
	}{v, sentence(err)})
}

func (p *Page) do(w http.ResponseWriter, r *http.Request) {
	a, value := Action(r.PostFormValue("action")), r.PostFormValue("value")
	if !equal(r.PostFormValue("stamp"), p.gate.stamp()) || !actions[a] {
		http.Error(w, "not a form of this page", http.StatusForbidden)
		return
	}
	// Once begun, it goes on, whatever the browser does.
	note, err := p.Do(context.WithoutCancel(r.Context()), a, value, p.language(r))
	if err != nil {
		note = ""
	}
	p.note, p.wrong = note, sentence(err)
	at := string(a)
	if a == Relaunch {
		at = "restart"
	}
	http.Redirect(w, r, "/?at="+at, http.StatusSeeOther)
}

// language is what the browser prefers, else what the session speaks.
func (p *Page) language(r *http.Request) *wording.Language {
	if accept := r.Header.Get("Accept-Language"); accept != "" {
		return wording.For(accept)
	}
	if p.Language != nil {
		return p.Language
	}
	return wording.English()
}

// sentence makes a sentence of an error, with what helps.
func sentence(err error) string {
	if err == nil {
		return ""
	}
	s := cmp.Or(err.Error(), "it did not work, and nothing said why")
	s = strings.ToUpper(s[:1]) + s[1:] + "."
	if hint := fault.HintOf(err); hint != "" {
		s += " (" + hint + ")"
	}
	return s
}

func (p *Page) render(w http.ResponseWriter, r *http.Request, name string, data any) {
	l := p.language(r)
	t, err := template.New("page").Funcs(template.FuncMap{
		"say": l.Say, "lang": l.Tag, "moment": l.Moment, "list": l.List,
		"question": func(n *evidence.Notice) string { return n.In(l) },
		"ago":      func(t time.Time) string { return l.Ago(time.Since(t)) },
	}).ParseFS(files, "page/*.html")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", l.Tag())
	if err := t.ExecuteTemplate(w, name, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
