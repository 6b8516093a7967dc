package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/program"
	"github.com/sealant-os/sealant/trust/signer"
	"github.com/sealant-os/sealant/trust/ticket"
)

const (
	softHSM = "/usr/lib/softhsm/libsofthsm2.so"
	pin     = "123456"
)

// TestMain runs the program itself when a test has started it that way: a
// PKCS #11 library keeps state in its process.
func TestMain(m *testing.M) {
	if os.Getenv("SEALANT_TEST_RUN") != "" {
		main()
	}
	os.Exit(m.Run())
}

// newToken makes a SoftHSM token in a folder of its own and returns the
// program's arguments for it.
func newToken(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	pinFile := filepath.Join(dir, "pin")
	for name, text := range map[string]string{
		conf:    "directories.tokendir = " + dir + "\nobjectstore.backend = file\nlog.level = ERROR\n",
		pinFile: pin + "\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	t.Setenv("SEALANT_TEST_RUN", "1")
	out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "vendor", "--so-pin", "654321", "--pin", pin).CombinedOutput()
	if err != nil {
		t.Fatalf("this test needs Debian's softhsm2: %v\n%s", err, out)
	}
	return []string{"--module", softHSM, "--token", "vendor", "--pin-file", pinFile}
}

// command is the program as another process.
func command(args ...string) *exec.Cmd { return exec.Command(os.Args[0], args...) }

func must(t *testing.T, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := command(args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, stderr.String())
	}
	return string(out)
}

// connect starts the program as sealpub does.
func connect(t *testing.T, args []string) *signer.Client {
	t.Helper()
	p, err := program.Start(context.Background(), append([]string{os.Args[0]}, args...), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return signer.NewClient(p)
}

func TestTicketRootInToken(t *testing.T) {
	args := newToken(t)
	if out := must(t, append(args, "--generate", "ticket-root")...); !strings.HasPrefix(out, "-----BEGIN PUBLIC KEY-----") || out != must(t, append(args, "--public", "ticket-root")...) {
		t.Errorf("public key: %s", out)
	}
	rootKey, err := connect(t, args).Key("ticket-root")
	if err != nil {
		t.Fatal(err)
	}
	// The root in the token issues a leaf whose key is in the token too, and a
	// device verifies its ticket.
	now := time.Now()
	root, err := ticket.NewRoot(rand.Reader, rootKey, "root in a token", now, now.AddDate(20, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	must(t, append(args, "--generate", "leaf")...)
	leafKey, err := connect(t, args).Key("leaf")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ticket.IssueLeaf(rand.Reader, root, rootKey, leafKey.Public(), ticket.Limits{Product: "ExampleOS"}, now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ticket.NewLeaf(leafKey, cert, root)
	if err != nil {
		t.Fatal(err)
	}
	claims := ticket.Claims{
		Device: [32]byte{1}, Product: "ExampleOS", Baseline: [48]byte{1}, Release: "SI-2026-0001", Domain: ticket.Domain, Nonce: [48]byte{1},
		Cryptexes: []ticket.Cryptex{{Name: "os", Subtype: 1, Image: [48]byte{1}, Seal: [48]byte{1}, TrustCache: [48]byte{1}, Root: [32]byte{1}}},
	}
	der, err := ticket.Issue(rand.Reader, leaf, claims)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ticket.Verify(der, root, ticket.Expect{
		Device: claims.Device, Product: claims.Product, Baseline: claims.Baseline, Nonce: claims.Nonce, Release: claims.Release, Cryptexes: claims.Cryptexes,
	}); err != nil {
		t.Error(err)
	}
}

func TestManySignatures(t *testing.T) {
	args := newToken(t)
	must(t, append(args, "--generate", "k")...)
	key, err := connect(t, args).Key("k")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		digest := sha512.Sum384([]byte{byte(i)})
		// The client verifies each signature before it hands it out.
		if _, err := key.Sign(nil, digest[:], crypto.SHA384); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefusals(t *testing.T) {
	args := newToken(t)
	must(t, append(args, "--generate", "k")...)
	c := connect(t, args)
	var refusal *signer.Refusal
	for _, name := range []string{"nobody", ""} {
		if _, err := c.Key(name); !errors.As(err, &refusal) || refusal.Code != signer.CodeUnknownKey {
			t.Errorf("key %q: %v", name, err)
		}
	}
	if _, err := c.Key("k"); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	// A second pair with the same label makes the name ambiguous.
	out, err := exec.Command("pkcs11-tool", "--module", softHSM, "--token-label", "vendor", "--login", "--pin", pin, "--keypairgen", "--key-type", "EC:secp384r1", "--label", "k", "--id", "07").CombinedOutput()
	if err != nil {
		t.Fatalf("this test needs Debian's opensc: %v\n%s", err, out)
	}
	if _, err := connect(t, args).Key("k"); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "2 keys called k") {
		t.Errorf("an ambiguous name: %v", err)
	}

	wrongPIN := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(wrongPIN, []byte("000000"), 0o600); err != nil {
		t.Fatal(err)
	}
	swap := func(flag, value string) []string {
		changed := slices.Clone(args)
		for i := range changed {
			if changed[i] == flag {
				changed[i+1] = value
			}
		}
		return changed
	}
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no arguments":   {nil, 2, "usage:"},
		"unknown flag":   {[]string{"--x"}, 2, "usage:"},
		"a word":         {append(slices.Clone(args), "word"), 2, "usage:"},
		"both":           {append(slices.Clone(args), "--generate", "a", "--public", "b"), 2, "usage:"},
		"no module":      {swap("--module", "/nonexistent.so"), 1, "cannot open token"},
		"no such token":  {swap("--token", "other"), 1, "cannot open token other"},
		"wrong PIN":      {swap("--pin-file", wrongPIN), 1, "cannot open token"},
		"no PIN file":    {swap("--pin-file", "/nonexistent"), 1, "cannot read the PIN"},
		"empty PIN file": {swap("--pin-file", "/dev/null"), 1, "is empty"},
		"endless PIN":    {swap("--pin-file", "/dev/zero"), 1, "larger than"},
		"no such key":    {append(slices.Clone(args), "--public", "nobody"), 1, "no key nobody"},
		"another key":    {append(slices.Clone(args), "--generate", "k2"), 0, ""},
	} {
		var stderr bytes.Buffer
		cmd := command(test.args...)
		cmd.Stderr = &stderr
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != test.code || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%s: %v: %s", name, err, stderr.String())
		}
	}
	if err := command(append(slices.Clone(args), "--generate", "k2")...).Run(); err == nil {
		t.Error("made a second key of the same name")
	}
}

func TestPINFromEnvironment(t *testing.T) {
	args := newToken(t)
	t.Setenv(pinEnv, pin)
	must(t, append(args[:4:4], "--generate", "k")...)
}
