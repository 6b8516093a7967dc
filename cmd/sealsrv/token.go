package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/program"
	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/trust/signer"
)

// signingTime is how long a signer program may take for one signature before it
// is believed to hang, and is started anew.
const signingTime = 10 * time.Second

// leafKeys finds the leaf's key among the configured key files: a key in a
// token, or in another program. None configured: leaf files bring their keys.
func leafKeys(cmd *cobra.Command, c *config) signing.Keys {
	if len(c.Tickets.LeafKeys) == 0 {
		return nil
	}
	var mu sync.Mutex
	running := map[[32]byte]*tokenKey{} // a leaf that follows another may have the same key
	return func(public crypto.PublicKey) (crypto.Signer, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, path := range c.Tickets.LeafKeys {
			file, err := readSmall(path)
			if err != nil {
				return nil, err
			}
			k, err := signer.Parse(file)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			if own, ok := k.Public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(public) {
				continue
			}
			if _, ok := k.Program(); !ok {
				return openKey(cmd, path)
			}
			t := running[k.ID()]
			if t == nil {
				t = &tokenKey{ctx: cmd.Context(), key: k, stderr: cmd.ErrOrStderr()}
				if err := t.connect(); err != nil {
					return nil, err
				}
				running[k.ID()] = t
			}
			return t, nil
		}
		return nil, fault.New(fault.Failed, "no key file of the configuration is for this certificate").
			Hint("tickets.leaf_keys in sealsrv.toml names them")
	}
}

// tokenKey is a key in another program, which it starts again when it fails:
// tokens are pulled out, and their libraries crash.
type tokenKey struct {
	ctx    context.Context
	key    *signer.Key
	stderr io.Writer

	mu     sync.Mutex
	proc   *program.Process
	signer crypto.Signer // nil: not connected
}

// Public implements crypto.Signer.
func (t *tokenKey) Public() crypto.PublicKey { return t.key.Public }

// connect starts the program.
func (t *tokenKey) connect() error {
	at, _ := t.key.Program()
	proc, err := program.Start(t.ctx, at.Command, t.stderr)
	if err != nil {
		return fmt.Errorf("cannot use key %s: %w", t.key.Name, err)
	}
	hangs := time.AfterFunc(signingTime, proc.Kill)
	defer hangs.Stop()
	key, err := t.key.Connect(proc)
	if err != nil {
		return errors.Join(err, proc.Close())
	}
	t.proc, t.signer = proc, key
	return nil
}

// Sign implements crypto.Signer. One signature is made at a time. A program
// that does not answer well is started anew, once for each signature.
func (t *tokenKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for again := false; ; again = true {
		if t.signer == nil {
			if err := t.connect(); err != nil {
				return nil, err
			}
		}
		hangs := time.AfterFunc(signingTime, t.proc.Kill)
		signature, err := t.signer.Sign(rand, digest, opts)
		hangs.Stop()
		var refusal *signer.Refusal
		if err == nil || errors.As(err, &refusal) && refusal.Code != signer.CodeFailed {
			return signature, err
		}
		_ = t.proc.Close() // why it ended, if it did, it said on stderr
		t.proc, t.signer = nil, nil
		if again {
			return nil, err
		}
	}
}
