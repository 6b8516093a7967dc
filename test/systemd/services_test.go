package systemd

import (
	"strings"
	"testing"
)

// A service that does not come up on the new content goes back, and says why.
func TestRelaunchGoesBack(t *testing.T) {
	k := newKiosk(t, files{
		"etc/sealant/apps.d/picky.toml": "cryptexes = [\"web\"]\nunit = \"picky.service\"\n",
		"etc/systemd/system/picky.service": "[Service]\nExecStart=/bin/sh -c " +
			"'grep -q base /usr/lib/cryptexes/web/version || { echo this is not for me; exit 7; }; exec /usr/lib/cryptexes/web/run 100000'\n",
		"etc/systemd/system/conn.socket":   "[Socket]\nListenStream=127.0.0.1:777\nAccept=yes\n",
		"etc/systemd/system/conn@.service": "[Service]\nExecStart=/bin/sh -c 'echo $(cat /usr/lib/cryptexes/web/version); exec sleep 1000'\nStandardOutput=socket\n",
		"etc/systemd/system/many@.service": program,
	})
	k.Run("systemctl start picky many@1 many@2 conn.socket")
	k.stage(k.a.ID)
	out, err := k.Try("sealant relaunch picky")
	for _, want := range []string{"exit code 7", "this is not for me", "runs on the content of the last boot again"} {
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("it does not say %q: %v\n%s", want, err, out)
		}
	}
	if c := k.content("picky"); c != "web base" {
		t.Errorf("after going back it has %q", c)
	}
	k.Run("systemctl restart picky; sleep 0.3; systemctl is-active picky")
	if out := k.Run("sealant history --json"); !strings.Contains(out, "relaunch-failed") {
		t.Errorf("the history does not tell:\n%s", out)
	}

	// All instances of a template.
	k.Run("sealant relaunch many@.service")
	for _, unit := range []string{"many@1", "many@2"} {
		if c := k.content(unit); c != "web (a)" {
			t.Errorf("%s has %q", unit, c)
		}
	}

	// A service that a socket starts: connections are left alone, new ones get it.
	// (Its drop-in comes by name, apps.d does not have it.)
	k.Run("sealant relaunch conn@.service")
	k.Run("(exec cat </dev/tcp/127.0.0.1/777 >/run/first 2>/dev/null) & disown")
	k.Eventually("the first connection is served", "grep 'web (a)' /run/first")
	k.stage(k.b.ID)
	if out := k.Run("sealant relaunch conn@.service"); !strings.Contains(out, "ends with it") {
		t.Errorf("%q", out)
	}
	k.Run("(exec cat </dev/tcp/127.0.0.1/777 >/run/second 2>/dev/null) & disown")
	k.Eventually("the second connection has the new content", "grep 'web (b)' /run/second")
	k.Run("test $(systemctl list-units --plain --no-legend 'conn@*' | wc -l) = 2")

	for name, want := range map[string]string{
		"dbus.service":   "sealant restart",
		"no-such":        "does not know that service",
		"conn.socket":    "no service",
		"../x.service":   "not the name of a service",
		"picky .service": "not the name of a service",
	} {
		if out, err := k.Try("sealant relaunch '" + name + "'"); err == nil || !strings.Contains(out, want) {
			t.Errorf("relaunch %q: %v %s", name, err, out)
		}
	}
}

// While sets are staged and taken back, whoever starts anything sees no error
// and a whole set: both cryptexes of one set, or of the other.
func TestNoGap(t *testing.T) {
	loop := `while :; do
		a=$(cat /usr/lib/cryptexes/web/version) && b=$(cat /usr/lib/cryptexes/os/version) && /usr/lib/cryptexes/web/run 0 || echo "ERROR $a $b"
		n=$((n+1)); echo $n >/run/loop.count
	done`
	k := newKiosk(t, files{
		readerApp: readerOf,
		"etc/systemd/system/reader.service": "[Service]\nType=oneshot\nExecStart=/bin/sh -c '" +
			"/usr/lib/cryptexes/web/run 0 && cat /usr/lib/cryptexes/web/version /usr/lib/cryptexes/os/version >/dev/null'\n",
		"usr/lib/loop":                    "#!/bin/sh\n" + loop + "\n",
		"etc/systemd/system/loop.service": "[Service]\nExecStart=/bin/sh /usr/lib/loop\nStandardOutput=file:/run/loop.errors\n",
	})
	k.Run("systemctl start loop")
	k.Run(`(for i in $(seq 60); do systemctl start reader || echo "start failed" >>/run/loop.errors; done; touch /run/starts.done) >/dev/null 2>&1 & disown
		for i in 1 2 3 4 5; do /usr/lib/sealant-test ` + inside + " " + k.a.ID + "; /usr/lib/sealant-test " + inside + " " + k.b.ID + "; /usr/lib/sealant-test " + inside + " -; done")
	k.Eventually("all starts", "test -e /run/starts.done")
	k.Run("systemctl stop loop")
	if errors := k.Run("cat /run/loop.errors"); errors != "" {
		t.Errorf("errors while content was switched:\n%s\n%s", errors, k.Run("journalctl -u reader --no-pager | tail -20"))
	}
	if n := strings.TrimSpace(k.Run("cat /run/loop.count")); len(n) < 2 {
		t.Errorf("only %s rounds", n)
	}
}
