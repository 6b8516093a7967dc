package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/fault"
	signed "github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/rollout"
	"github.com/sealant-os/sealant/server/setlog"
	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/server/store"
	trustlog "github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/ticket"
	"github.com/sealant-os/sealant/trust/tpm"
)

// Limits of a connection.
const (
	readHeader = 10 * time.Second
	idle       = 2 * time.Minute
	maxHeader  = 16 << 10 // bytes
	goodbye    = 15 * time.Second
	// A download may take this long: 1 GB at 300 kB/s. Who is slower resumes.
	longest = time.Hour
)

// run serves until the command's context ends. ready is called once, with the
// server's address, when it answers.
func run(cmd *cobra.Command, c *config, ready func(url string) error) error {
	ctx := cmd.Context()
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	if os.Getenv("GOGC") == "" {
		// What lives is small; collecting it as often as Go does by itself
		// costs a tenth of a ticket's processor time (BenchmarkServe).
		debug.SetGCPercent(400)
	}
	db, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	defer db.Close()
	ticketRoot, err := openTicketRoot(c)
	if err != nil {
		return err
	}
	leaf, err := signing.OpenLeafOf(c.Tickets.Leaf, ticketRoot, leafKeys(cmd, c))
	if err != nil {
		return fault.New(fault.KindOf(err), "%w", err).Hint("sealsrv leaf new makes one")
	}
	online, err := openKeys(cmd, c.Keys.Online)
	if err != nil {
		return err
	}
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if len(online) > 0 {
		repository, err := signed.OpenRepository(c.Repository)
		if err != nil {
			return err
		}
		keeper := &catalog.Keeper{Repository: repository, Dir: c.Repository, Online: online, Now: time.Now, Log: log}
		if err := keeper.Refresh(); err != nil && fault.KindOf(err) != fault.Busy {
			return err
		}
		background.Go(func() { keeper.Run(ctx) })
	}
	source, err := openSource(ctx, c, c.State)
	if err != nil {
		return err
	}
	for _, unfit := range source.Unfit() {
		log.Warn("improvement can't be signed", "reason", unfit)
	}
	files, err := catalog.OpenFiles(c.Repository)
	if err != nil {
		return err
	}
	defer files.Close()
	setLog, err := openLog(cmd, c, db)
	if err != nil {
		return err
	}
	makers, err := openMakers(c)
	if err != nil {
		return err
	}
	tokens, err := openTokenKey(c)
	if err != nil {
		return err
	}
	handler, err := server.New(server.Config{
		DB: db, Source: source, Files: files, Leaf: leaf, SetLog: setLog, Makers: makers, Tokens: tokens, Security: c.Security, Log: log,
		MaxAtOnce: c.Limits.AtOnce, PerHour: c.Limits.TicketsPerHour, Burst: c.Limits.Burst,
	})
	if err != nil {
		return err
	}
	guard := &rollout.Desk{DB: db, Source: source, Now: time.Now}
	background.Go(func() { guard.Watch(ctx, log) })
	return listen(ctx, c, handler, log, ready)
}

// openLog opens the public log of sets; nil if there is none.
func openLog(cmd *cobra.Command, c *config, db *store.DB) (*setlog.Log, error) {
	if c.Log.Key == "" {
		return nil, nil
	}
	key, err := openKey(cmd, c.Log.Key)
	if err != nil {
		return nil, err
	}
	s, err := trustlog.NewSigner(c.Log.Name, key)
	if err != nil {
		return nil, err
	}
	return &setlog.Log{DB: db, Signer: s, Now: time.Now}, nil
}

// openMakers reads the certificates of makers of TPMs; nil if none are named.
func openMakers(c *config) (*tpm.Makers, error) {
	if c.Enroll.EKRoots == "" {
		return nil, nil
	}
	text, err := readSmall(c.Enroll.EKRoots)
	if err != nil {
		return nil, fmt.Errorf("cannot read the TPM makers' certificates: %w", err)
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Enroll.EKRoots, err)
		}
		certs = append(certs, cert)
	}
	makers, err := tpm.NewMakers(certs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Enroll.EKRoots, err)
	}
	return makers, nil
}

func openTicketRoot(c *config) (*x509.Certificate, error) {
	text, err := readSmall(c.Tickets.Root)
	if err != nil {
		return nil, fmt.Errorf("cannot read the ticket root: %w", err)
	}
	return ticket.ParseRoot(text)
}

func listen(ctx context.Context, c *config, handler http.Handler, log *slog.Logger, ready func(string) error) error {
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	defer l.Close()
	s := &http.Server{
		Handler: handler, ReadHeaderTimeout: readHeader, ReadTimeout: longest, WriteTimeout: longest, IdleTimeout: idle,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	scheme := "http"
	if c.TLS.Cert != "" {
		pair := &certificate{cert: c.TLS.Cert, key: c.TLS.Key}
		if err := pair.load(); err != nil {
			return fmt.Errorf("cannot use the TLS certificate: %w", err)
		}
		s.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: pair.get,
			// A device may show a certificate of its key in place of signing each
			// request. No authority stands behind it: the key is what was enrolled.
			ClientAuth: tls.RequestClientCert,
		}
		scheme = "https"
	}
	done := make(chan error, 1)
	go func() {
		if s.TLSConfig != nil {
			done <- s.ServeTLS(l, "", "")
		} else {
			done <- s.Serve(l)
		}
	}()
	if err := ready(scheme + "://" + l.Addr().String()); err != nil {
		s.Close()
		return err
	}
	select {
	case err := <-done:
		return fmt.Errorf("cannot serve: %w", err)
	case <-ctx.Done():
	}
	log.Info("stopping")
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if err := s.Shutdown(late); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("cannot stop: %w", err)
	}
	return nil
}

// certificate is the server's TLS certificate in two files that others renew.
type certificate struct {
	cert, key string

	mu     sync.Mutex
	pair   *tls.Certificate
	loaded time.Time // of the file
	looked time.Time
}

func (c *certificate) load() error {
	info, err := os.Stat(c.cert)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	c.pair, c.loaded = &pair, info.ModTime()
	return nil
}

// get returns the certificate in force, after a look at its file every minute.
// Files that can't be used leave the old one in force.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) > time.Minute {
		c.looked = now
		if info, err := os.Stat(c.cert); err == nil && !info.ModTime().Equal(c.loaded) {
			if err := c.load(); err != nil {
				slog.Error("TLS certificate not renewed", "error", err)
			}
		}
	}
	return c.pair, nil
}
