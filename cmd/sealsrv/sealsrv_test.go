package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/publish"
	"github.com/sealant-os/sealant/release"
	signed "github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/setlog"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/server/store/storetest"
	"github.com/sealant-os/sealant/trust/identity"
	trustlog "github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/signer"
	"github.com/sealant-os/sealant/trust/ticket"
)

func TestMain(m *testing.M) {
	if os.Getenv(asSealsrv) != "" {
		beSealsrv()
	}
	testscript.Main(tidy{m}, map[string]func(){
		"sealsrv": func() { cli.Main(root()) },
		"lab":     func() { exit(lab(os.Args[1:])) },
	})
}

// tidy stops what tests started before it says how they ended.
type tidy struct{ *testing.M }

// Run implements testscript.TestingM.
func (t tidy) Run() int {
	defer storetest.Stop()
	return t.M.Run()
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("LC_ALL", "C.UTF-8")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"await": await},
	})
}

// await waits until a file is there and sets a variable to its content:
// await FILE VARIABLE.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE VARIABLE")
	}
	for range 400 {
		if text, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && len(text) > 0 {
			ts.Setenv(args[1], strings.TrimSpace(string(text)))
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	ts.Fatalf("%s did not appear in 10 s", args[0])
}

// lab is what scripts need of publishers and devices:
//
//	lab vendor DIR N [PEOPLE]    a vendor folder with a baseline and N improvements;
//	                             so many people must sign recalls and advice
//	lab encrypt KEY PASSPHRASE   encrypts a key file
//	lab newkey KEY NAME          makes a P-384 key in a file
//	lab attach KEY FILE          writes FILE as a key file of the same key in another
//	                             program, which is lab signer KEY
//	lab signer KEY PIDFILE       talks the signer protocol for a key file
//	lab enrol URL KEY TOKEN      enrols the device of a key file, which it makes
//	lab ask URL KEY LEVEL NONCE  asks for a ticket; prints ok or the code
//	lab smuggle DIR log|ticket   authorises a set that was never published, as a
//	                             thief in the server does: all of the log's rules
//	                             are kept, and a ticket is recorded
func lab(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("usage: lab vendor|encrypt|enrol|ask …")
	}
	switch args[0] {
	case "vendor":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		people := 1
		if len(args) > 3 {
			if people, err = strconv.Atoi(args[3]); err != nil {
				return err
			}
		}
		return labVendor(args[1], n, people)
	case "encrypt":
		return labEncrypt(args[1], args[2])
	case "newkey":
		return labNewKey(args[1], args[2])
	case "attach":
		return labAttach(args[1], args[2])
	case "signer":
		return labSigner(args[1], args[2])
	case "enrol":
		return labEnrol(args[1], args[2], args[3])
	case "smuggle":
		return labSmuggle(args[1], args[2])
	case "ask":
		return labAsk(args[1], args[2], args[3], args[4])
	}
	return fmt.Errorf("lab does not know %s", args[0])
}

func labNewKey(path, name string) error {
	key, err := signer.New(rand.Reader, signer.P384)
	if err != nil {
		return err
	}
	file, err := signer.Unencrypted(name, key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, file, 0o600)
}

func labAttach(path, to string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	k, err := signer.Parse(text)
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	file, err := signer.External(k.Name, k.Public, signer.Program{Command: []string{"lab", "signer", path, path + ".pid"}, Key: k.Name})
	if err != nil {
		return err
	}
	return os.WriteFile(to, file, 0o600)
}

func labSigner(path, pid string) error {
	if err := os.WriteFile(pid, fmt.Append(nil, os.Getpid()), 0o600); err != nil {
		return err
	}
	return signer.Serve(os.Stdin, os.Stdout, func(string) (crypto.Signer, error) { return labKey(path) })
}

func labKey(path string) (crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k, err := signer.Parse(text)
	if err != nil {
		return nil, err
	}
	return k.Unlock(nil)
}

func labVendor(dir string, n, people int) error {
	quorum := publish.Quorum{Keys: people, Threshold: people}
	v, err := publish.Init(dir, publish.Setup{
		Product: servertest.Product, OSVersion: "42.3.0", Throwaway: true, Recall: quorum, Advice: quorum,
	})
	if err != nil {
		return err
	}
	repo, err := v.Repository()
	if err != nil {
		return err
	}
	targets, err := labKey(filepath.Join(dir, "keys", "targets-owner.key"))
	if err != nil {
		return err
	}
	now := time.Now()
	draft, err := repo.Draft(signed.Targets, now)
	if err != nil {
		return err
	}
	add := func(path string, data []byte, err error) error {
		if err != nil {
			return err
		}
		t, err := repo.Store(path, bytes.NewReader(data))
		if err != nil {
			return err
		}
		return draft.Set(t)
	}
	base := servertest.Baseline()
	data, err := base.Encode()
	if err := add(release.BaselinePath(base.Digest()), data, err); err != nil {
		return err
	}
	for i := 1; i <= n; i++ {
		data, err := servertest.Manifest(i, now).Encode()
		if err := add(release.ManifestPath(servertest.ID(i)), data, err); err != nil {
			return err
		}
	}
	if _, err := draft.Sign(targets); err != nil {
		return err
	}
	return repo.Publish(draft)
}

func labSmuggle(dir, what string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, filepath.Join(dir, "server", "fleet.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	base := servertest.Baseline()
	set := &catalog.Set{Product: servertest.Product, Baseline: base.Digest(), Release: "SI-2026-0999"}
	for _, c := range base.Cryptexes {
		set.Cryptexes = append(set.Cryptexes, ticket.Cryptex{Name: c.Name, Subtype: uint8(c.Subtype), Image: [48]byte{1}, Seal: c.Seal.Digest, TrustCache: c.TrustCache, Root: c.Seal.Root})
	}
	set.Content = sha512.Sum384(set.Text())
	if what == "ticket" {
		devices, err := db.Devices(ctx, store.Filter{Limit: 1})
		if err != nil || len(devices) == 0 {
			return fmt.Errorf("no device: %w", err)
		}
		_, err = db.Record(ctx, store.Ticket{
			Digest: [32]byte{1}, Device: devices[0].ID, Product: set.Product, Baseline: set.Baseline, Release: set.Release,
			Nonce: make([]byte, 48), Content: set.Content, Issued: time.Now(),
		})
		return err
	}
	key, err := labKey(filepath.Join(dir, "keys", "online", "log.key"))
	if err != nil {
		return err
	}
	s, err := trustlog.NewSigner(servertest.Product, key)
	if err != nil {
		return err
	}
	return (&setlog.Log{DB: db, Signer: s, Now: time.Now}).Include(ctx, set)
}

func labEncrypt(path, passphrase string) error {
	key, err := labKey(path)
	if err != nil {
		return err
	}
	text, err := signer.Encrypt("recall", key, []byte(passphrase))
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func labEnrol(url, file, token string) error {
	key, err := identity.NewKey(rand.Reader)
	if err != nil {
		return err
	}
	text, err := identity.MarshalKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	public, err := identity.MarshalPublic(key.Public())
	if err != nil {
		return err
	}
	id, err := identity.IDOf(key.Public())
	if err != nil {
		return err
	}
	code, err := labPost(url, "/v1/enroll", key, server.Enrolment{
		Token: token, PublicKey: public, Product: servertest.Product, Baseline: servertest.Baseline().Digest().String(),
	})
	fmt.Println(code, id)
	return err
}

func labAsk(url, file, level, nonce string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	key, err := identity.ParseKey(text)
	if err != nil {
		return err
	}
	l, err := strconv.Atoi(level)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(nonce)
	if err != nil {
		return err
	}
	value := servertest.Nonce(n)
	code, err := labPost(url, "/v1/tickets", key, server.TicketRequest{
		Product: servertest.Product, Baseline: servertest.Baseline().Digest().String(), Release: servertest.ID(l),
		Domain: ticket.Domain, Nonce: hex.EncodeToString(value[:]),
	})
	fmt.Println(code)
	return err
}

// labPost sends a signed request and returns "ok" or the problem's code.
func labPost(url, path string, key *ecdsa.PrivateKey, body any) (string, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	sig, err := identity.SignRequest(key, "POST", path, data, time.Now())
	if err != nil {
		return "", err
	}
	req, err := http.NewRequest("POST", url+path, bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(identity.DeviceHeader, sig.Device)
	req.Header.Set(identity.DateHeader, sig.Date)
	req.Header.Set(identity.SignatureHeader, sig.Signature)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode == http.StatusOK {
		return "ok", nil
	}
	var p server.Problem
	if err := json.Unmarshal(answer, &p); err != nil {
		return "", err
	}
	return p.Code, nil
}
