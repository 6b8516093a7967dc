package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
)

// Fetcher brings the bytes of a catalog. It is trusted with nothing.
type Fetcher interface {
	// Fetch opens a file of the catalog ("metadata/timestamp.json") at a byte
	// offset. A file that isn't there gives an error that is fs.ErrNotExist.
	Fetch(ctx context.Context, path string, offset int64) (io.ReadCloser, error)
}

// HTTP fetches from a web server, mirror or CDN.
type HTTP struct {
	Base   string       // address below which metadata/ and targets/ stand
	Client *http.Client // http.DefaultClient where nil

	// A transfer that brings fewer than MinRate bytes during Patience is
	// given up as unreachable. Defaults: 512 bytes, 30 seconds.
	MinRate  int64
	Patience time.Duration
}

// Fetch implements Fetcher.
func (h *HTTP) Fetch(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if !fs.ValidPath(name) {
		return nil, fmt.Errorf("cannot fetch %q: not a path", name)
	}
	address, err := url.JoinPath(h.Base, strings.Split(name, "/")...)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot fetch from %q: %w", h.Base, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watch := h.watch(cancel)
	body, err := h.get(ctx, address, offset)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = ended(cause)
		}
		watch.stop()
		return nil, fmt.Errorf("cannot fetch %s: %w", name, err)
	}
	watch.got(0)
	return &watched{body: body, watch: watch, ctx: ctx, name: name}, nil
}

func (h *HTTP) get(ctx context.Context, address string, offset int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fault.New(fault.Usage, "%w", err)
	}
	req.Header.Set("User-Agent", "sealant/1")
	req.Header.Set("Accept-Encoding", "identity") // lengths and ranges count stored bytes
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	client := h.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fault.New(fault.Unreachable, "%w", err).Hint("check the network and the server's address")
	}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if first, ok := firstByte(resp.Header.Get("Content-Range")); ok && first == offset {
			return resp.Body, nil
		}
		err = fault.New(fault.Unreachable, "the server sent another range than asked for")
	case http.StatusOK:
		if offset == 0 {
			return resp.Body, nil
		}
		// The server doesn't know ranges: read past what is there already.
		if _, err = io.CopyN(io.Discard, resp.Body, offset); err == nil {
			return resp.Body, nil
		}
		err = fault.New(fault.Unreachable, "%w", err)
	case http.StatusNotFound, http.StatusForbidden, http.StatusGone: // 403 is how some blob stores say 404
		err = fmt.Errorf("the server says %s: %w", resp.Status, fs.ErrNotExist)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		err = fault.New(fault.Busy, "the server says %s", resp.Status).Hint("try again later")
	default:
		err = fault.New(fault.Unreachable, "the server says %s", resp.Status)
	}
	resp.Body.Close()
	return nil, err
}

// ended is why a transfer ended early: a deadline means that nobody answered in
// time; a cancellation by the caller stays what it is.
func ended(cause error) error {
	if errors.Is(cause, context.DeadlineExceeded) {
		return fault.New(fault.Unreachable, "the server did not answer in time: %w", cause)
	}
	return cause
}

// firstByte reads the start of "bytes 100-199/200".
func firstByte(contentRange string) (int64, bool) {
	rest, ok := strings.CutPrefix(contentRange, "bytes ")
	if !ok {
		return 0, false
	}
	first, _, ok := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, ok && err == nil
}

// watch starts the clock of a transfer.
func (h *HTTP) watch(cancel context.CancelCauseFunc) *watch {
	w := &watch{cancel: cancel, rate: h.MinRate, patience: h.Patience}
	if w.rate == 0 {
		w.rate = 512
	}
	if w.patience == 0 {
		w.patience = 30 * time.Second
	}
	w.timer = time.AfterFunc(w.patience, func() {
		cancel(fault.New(fault.Unreachable, "the server sends too slowly (under %d bytes in %s)", w.rate, w.patience))
	})
	w.begun = time.Now()
	return w
}

// watch cancels a transfer unless it brings rate bytes in every patience spent
// waiting for it. Time that the reader spends elsewhere does not count.
type watch struct {
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	rate     int64
	patience time.Duration
	begun    time.Time     // of the present wait
	spent    time.Duration // waited since seen was 0
	seen     int64         // bytes
}

func (w *watch) wait() {
	w.begun = time.Now()
	w.timer.Reset(w.patience - w.spent)
}

func (w *watch) got(n int) {
	w.timer.Stop()
	w.spent += time.Since(w.begun)
	if w.seen += int64(n); w.seen >= w.rate {
		w.seen, w.spent = 0, 0
	}
}

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// watched is a response body under a watch.
type watched struct {
	body  io.ReadCloser
	watch *watch
	ctx   context.Context
	name  string
}

func (b *watched) Read(p []byte) (int, error) {
	b.watch.wait()
	n, err := b.body.Read(p)
	b.watch.got(n)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if cause := context.Cause(b.ctx); cause != nil {
		return n, fmt.Errorf("cannot fetch %s: %w", b.name, ended(cause))
	}
	return n, fault.New(fault.Unreachable, "cannot fetch %s: %w", b.name, err)
}

func (b *watched) Close() error {
	b.watch.stop()
	return b.body.Close()
}

// Folder fetches from a folder: a mirror on a stick, or the machine itself.
type Folder string

// Fetch implements Fetcher.
func (f Folder) Fetch(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot fetch %s: %w", name, err)
	}
	root, err := os.OpenRoot(string(f)) // no link leads out of it
	if err != nil {
		return nil, fault.New(fault.Unreachable, "cannot fetch %s: %w", name, err)
	}
	defer root.Close()
	file, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %s: %w", name, err)
	}
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		file.Close()
		return nil, fault.New(fault.Unreachable, "cannot fetch %s: not a file", name)
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		file.Close()
		return nil, fault.New(fault.Unreachable, "cannot fetch %s: %w", name, err)
	}
	return file, nil
}
