package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/internal/cli"
)

// keysRun runs sealpub with in as standard input.
func keysRun(in *os.File, args ...string) (code int, stdout, stderr string) {
	cmd := root()
	if in != nil {
		cmd.SetIn(in)
	}
	var out, err bytes.Buffer
	code = cli.Run(cmd, args, &out, &err)
	return code, out.String(), err.String()
}

// keysMust runs sealpub, which must succeed.
func keysMust(t *testing.T, args ...string) string {
	t.Helper()
	code, out, stderr := keysRun(nil, args...)
	if code != 0 {
		t.Fatalf("sealpub %v: exit code %d: %s", args, code, stderr)
	}
	return out
}

func TestKeysNew(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("pass", []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := keysMust(t, "keys", "new", "alice", "--for", "targets", "--passphrase-file", "pass"); out != "alice.key\n" {
		t.Errorf("printed %q", out)
	}
	at, err := os.Stat("alice.key")
	if err != nil || at.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", at.Mode(), err)
	}
	text, _ := os.ReadFile("alice.key")
	if strings.Contains(string(text), "unencrypted") {
		t.Error("not encrypted")
	}
	t.Setenv("SEALANT_PASSPHRASE", "from the environment")
	keysMust(t, "keys", "new", "root", "--for", "ticket-root", "-o", "ticket-root.key")

	s := cli.For(root())
	key, done, err := openKey(t.Context(), s, "alice.key", &secret{file: "pass"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := key.(ed25519.PrivateKey); !ok || done() != nil {
		t.Errorf("a key of type %T", key)
	}
	if key, _, err = openKey(t.Context(), s, "ticket-root.key", &secret{}); err != nil {
		t.Fatal(err)
	}
	if k, ok := key.(*ecdsa.PrivateKey); !ok || k.Curve.Params().BitSize != 384 {
		t.Errorf("a key of type %T", key)
	}
	if _, _, err := openKey(t.Context(), s, "ticket-root.key", &secret{file: "pass"}); err == nil {
		t.Error("opened with another passphrase")
	}

	before, _ := os.ReadFile("alice.key")
	for name, args := range map[string][]string{
		"2 no role":          {"keys", "new", "bob"},
		"2 unknown role":     {"keys", "new", "bob", "--for", "everything"},
		"2 bad name":         {"keys", "new", "../bob", "--for", "targets"},
		"2 no name":          {"keys", "new", "--for", "targets"},
		"1 exists":           {"keys", "new", "alice", "--for", "targets"},
		"2 no such file":     {"keys", "new", "bob", "--for", "targets", "--passphrase-file", "nothing"},
		"2 empty file":       {"keys", "new", "bob", "--for", "targets", "--passphrase-file", "/dev/null"},
		"2 endless file":     {"keys", "new", "bob", "--for", "targets", "--passphrase-file", "/dev/zero"},
		"1 no folder":        {"keys", "new", "bob", "--for", "targets", "-o", "no/folder.key"},
		"1 show nothing":     {"keys", "show", "nothing.key"},
		"1 show no key":      {"keys", "show", "pass"},
		"1 list nothing":     {"keys", "list", "nothing"},
		"1 list no key":      {"keys", "list", "pass"},
		"2 unknown command":  {"keys", "destroy"},
		"1 program missing":  {"keys", "attach", "hsm", "--key", "k", "--", "no-such-program"},
		"1 program is mute":  {"keys", "attach", "hsm", "--key", "k", "--", "true"},
		"2 attach, no label": {"keys", "attach", "hsm", "--", "true"},
		"2 attach, no words": {"keys", "attach", "hsm", "--key", "k"},
	} {
		want := int(name[0] - '0')
		if code, out, stderr := keysRun(nil, args...); code != want || out != "" || stderr == "" {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", name, code, out, stderr)
		}
	}
	t.Setenv("SEALANT_PASSPHRASE", "short")
	if code, _, stderr := keysRun(nil, "keys", "new", "bob", "--for", "targets"); code != 2 || !strings.Contains(stderr, "fewer than 8") {
		t.Errorf("a short passphrase: %d, %s", code, stderr)
	}
	if after, _ := os.ReadFile("alice.key"); !bytes.Equal(before, after) {
		t.Error("a key was overwritten")
	}
	if files, _ := filepath.Glob("*.key"); len(files) != 2 {
		t.Errorf("files left: %v", files)
	}
}

func TestKeysShowAndList(t *testing.T) {
	t.Chdir(t.TempDir())
	code, _, stderr := keysRun(nil, "keys", "new", "dev", "--for", "rollout", "--insecure-unencrypted")
	if code != 0 || !strings.Contains(stderr, "development only") {
		t.Errorf("%d, %s", code, stderr)
	}
	t.Setenv("SEALANT_PASSPHRASE", "long enough")
	if err := os.Mkdir("online", 0o700); err != nil {
		t.Fatal(err)
	}
	keysMust(t, "keys", "new", "snapshot", "--for", "snapshot", "-o", "online/snapshot.key")

	var all struct {
		Schema string
		Keys   []keyDocument
	}
	if err := json.Unmarshal([]byte(keysMust(t, "keys", "list", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	if all.Schema != "sealant.keys/1" || len(all.Keys) != 2 || all.Keys[0].Kept != "unencrypted" || all.Keys[1].Kept != "encrypted" || all.Keys[1].File != "online/snapshot.key" {
		t.Errorf("list: %+v", all)
	}
	text := keysMust(t, "keys", "list", "dev.key", "online")
	if !strings.Contains(text, "dev ") || !strings.Contains(text, "unencrypted") || !strings.Contains(text, "online/snapshot.key") {
		t.Errorf("list: %s", text)
	}
	var one keyDocument
	if err := json.Unmarshal([]byte(keysMust(t, "keys", "show", "dev.key", "--json")), &one); err != nil || one.ID != all.Keys[0].ID {
		t.Errorf("show: %+v, %v", one, err)
	}
	if text := keysMust(t, "keys", "show", "dev.key"); !strings.Contains(text, "-----BEGIN PUBLIC KEY-----") || !strings.Contains(text, one.ID) || strings.Contains(text, "PRIVATE") {
		t.Errorf("show: %s", text)
	}
	if code, out, _ := keysRun(nil, "keys", "show", "nothing", "--json"); code != 1 || !strings.Contains(out, "sealant.error/1") {
		t.Errorf("show --json of nothing: %d, %s", code, out)
	}
	t.Chdir(t.TempDir())
	if text := keysMust(t, "keys", "list", "--json"); !strings.Contains(text, `"keys": []`) {
		t.Errorf("an empty list: %s", text)
	}
}

// tty is a terminal: what is typed is written to the first file, and the
// second is the program's standard input.
func tty(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return keyboard, terminal
}

// TestKeysAsk types passphrases on a terminal, which shows none of them.
func TestKeysAsk(t *testing.T) {
	t.Chdir(t.TempDir())
	run := func(typed string, args ...string) (int, string, string) {
		keyboard, terminal := tty(t)
		shown := make(chan string, 1)
		go func() {
			b := make([]byte, 4096)
			n, _ := keyboard.Read(b)
			shown <- string(b[:n])
		}()
		if _, err := keyboard.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := keysRun(terminal, args...)
		terminal.Close()
		return code, <-shown, stderr
	}
	code, _, stderr := run("correct horse\ncorrect horse\n", "keys", "new", "alice", "--for", "targets")
	if code != 0 || !strings.Contains(stderr, "New passphrase of alice: ") || strings.Contains(stderr, "horse") {
		t.Errorf("%d, %s", code, stderr)
	}
	if code, _, stderr := run("correct horse\nanother horse\n", "keys", "new", "bob", "--for", "targets"); code != 2 || !strings.Contains(stderr, "differ") {
		t.Errorf("two different ones: %d, %s", code, stderr)
	}
	if code, _, stderr := run("short\n", "keys", "new", "bob", "--for", "targets"); code != 2 || !strings.Contains(stderr, "fewer than 8") {
		t.Errorf("a short one: %d, %s", code, stderr)
	}
	if code, _, stderr := run("wrong horse\n", "keys", "passphrase", "alice.key"); code != 30 || !strings.Contains(stderr, "passphrase is wrong") {
		t.Errorf("a wrong one: %d, %s", code, stderr)
	}
	if code, _, stderr := run("correct horse\nbattery staple\nbattery staple\n", "keys", "passphrase", "alice.key"); code != 0 {
		t.Errorf("a change: %d, %s", code, stderr)
	}
	t.Setenv("SEALANT_PASSPHRASE", "battery staple")
	s := cli.For(root())
	if _, _, err := openKey(t.Context(), s, "alice.key", &secret{}); err != nil {
		t.Errorf("after the change: %v", err)
	}
	if err := os.WriteFile("new", []byte("a third horse"), 0o600); err != nil {
		t.Fatal(err)
	}
	keysMust(t, "keys", "passphrase", "alice.key", "--new-passphrase-file", "new")
	keysMust(t, "keys", "passphrase", "alice.key", "--passphrase-file", "new", "--new-passphrase-file", "new")
	if files, _ := filepath.Glob(".*"); len(files) != 0 {
		t.Errorf("files left: %v", files)
	}
	// Without a terminal it says what to do instead of waiting.
	t.Setenv("SEALANT_PASSPHRASE", "")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if code, _, stderr := keysRun(null, "keys", "new", "bob", "--for", "targets"); code != 2 || !strings.Contains(stderr, "--passphrase-file") {
		t.Errorf("without a terminal: %d, %s", code, stderr)
	}
}

// TestKeysAttach uses a program that knows one public key and never signs.
func TestKeysAttach(t *testing.T) {
	t.Chdir(t.TempDir())
	keysMust(t, "keys", "new", "dev", "--for", "ticket-root", "--insecure-unencrypted")
	dev, err := readKey("dev.key")
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(dev.Public)
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nread -r line && echo '{\"id\":1,\"public\":\"" + base64.StdEncoding.EncodeToString(der) + "\"}'\n" +
		"read -r line && echo '{\"id\":2,\"error\":\"touch the token\",\"code\":\"locked\"}'\nexit 0\n"
	if err := os.WriteFile("token", []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	program, err := filepath.Abs("token")
	if err != nil {
		t.Fatal(err)
	}
	keysMust(t, "keys", "attach", "hsm", "--key", "root", "--", program, "--slot", "1")
	var shown keyDocument
	if err := json.Unmarshal([]byte(keysMust(t, "keys", "show", "hsm.key", "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	if shown.Kept != "program" || shown.Program == nil || shown.Program.Key != "root" || len(shown.Program.Command) != 3 || shown.Algorithm != "ecdsa-p384" {
		t.Errorf("show: %+v", shown)
	}
	if text := keysMust(t, "keys", "show", "hsm.key"); !strings.Contains(text, program+" --slot 1") {
		t.Errorf("show: %s", text)
	}
	key, done, err := openKey(t.Context(), cli.For(root()), "hsm.key", &secret{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Sign(nil, make([]byte, 48), crypto.SHA384); err == nil || !strings.Contains(err.Error(), "touch the token") {
		t.Errorf("sign: %v", err)
	}
	if err := done(); err != nil {
		t.Error(err)
	}
	if code, _, stderr := keysRun(nil, "keys", "passphrase", "hsm.key"); code != 2 || !strings.Contains(stderr, "lives in a program") {
		t.Errorf("a passphrase for a token's key: %d, %s", code, stderr)
	}
	if code, _, _ := keysRun(nil, "keys", "attach", "hsm", "--key", "root", "--", program); code != 1 {
		t.Error("overwrote a key file")
	}
	// The program has another key under that name now.
	keysMust(t, "keys", "new", "other", "--for", "ticket-root", "--insecure-unencrypted")
	text, _ := os.ReadFile("hsm.key")
	other, err := readKey("other.key")
	if err != nil {
		t.Fatal(err)
	}
	otherDER, _ := x509.MarshalPKIXPublicKey(other.Public)
	swapped := strings.Replace(string(text), base64.StdEncoding.EncodeToString(der), base64.StdEncoding.EncodeToString(otherDER), 1)
	if err := os.WriteFile("swapped.key", []byte(swapped), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openKey(t.Context(), cli.For(root()), "swapped.key", &secret{}); err == nil {
		t.Error("used a key that isn't the file's")
	}
}
