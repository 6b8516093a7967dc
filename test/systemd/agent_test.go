package systemd

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// person are the lines that make the users of these tests.
const person = `
	useradd -m -u 1000 anna; useradd -m -u 1001 bob
	install -d -m 755 /etc/polkit-1/rules.d
	cat >/etc/polkit-1/rules.d/50-test.rules <<'END'
polkit.addRule(function(action, subject) {
	if (action.id == "org.sealant.relaunch" && subject.user == "anna") return polkit.Result.YES;
	if (action.id == "org.sealant.check" && subject.user == "bob") return polkit.Result.NO;
	if (action.id == "org.sealant.restart" && subject.user == "anna") return polkit.Result.YES;
});
END
	systemctl restart polkit`

// The agent is up as a service, in its sandbox, in everybody's mount namespace;
// it answers on the bus, and polkit decides.
func TestAgent(t *testing.T) {
	k := newKiosk(t, files{
		readerApp:                           readerOf,
		"etc/systemd/system/reader.service": program,
	})
	k.active("sealant.service", "sealant-launch.socket")
	if mine, all := k.Run("readlink -v /proc/$(systemctl show -P MainPID sealant)/ns/mnt"), k.Run("readlink -v /proc/1/ns/mnt"); mine != all {
		t.Errorf("what the agent mounts nobody would see: %s and %s", mine, all)
	}
	k.Run("grep -q 'NoNewPrivs:.*1' /proc/$(systemctl show -P MainPID sealant)/status")

	// What the boot did was confirmed, after the system had come up.
	k.active("boot-complete.target", "sealant-confirm.service")

	k.Run(person)
	k.Run("systemctl start reader")
	k.stage(k.a.ID)
	call := "busctl call org.sealant.Agent1 /org/sealant/Agent1 org.sealant.Agent1 "
	if out := k.Run("runuser -u bob -- " + call + "Status"); !strings.Contains(out, "SI-2026-0001") {
		t.Errorf("reading is open to all: %s", out)
	}
	out, err := k.Try("runuser -u bob -- " + call + "Relaunch s reader")
	if err == nil || !strings.Contains(out, "org.sealant.relaunch") {
		t.Errorf("bob may relaunch: %v %s", err, out)
	}
	if out, err := k.Try("runuser -u bob -- sealant relaunch reader"); err == nil || !strings.Contains(out, "org.sealant.relaunch") {
		t.Errorf("bob may relaunch by the socket: %v %s", err, out)
	}
	if c := k.content("reader"); c != "web base" {
		t.Errorf("a refused request did something: %q", c)
	}
	if out := k.Run("runuser -u anna -- " + call + "Relaunch s reader"); !strings.Contains(out, "restarted") {
		t.Errorf("anna may: %s", out)
	}
	if c := k.content("reader"); c != "web (a)" {
		t.Errorf("%q", c)
	}
	k.Run("runuser -u anna -- sealant relaunch reader.service")
	if out, err := k.Try("runuser -u bob -- sealant check"); err == nil || !strings.Contains(out, "org.sealant.check") {
		t.Errorf("a rule against asking for news: %v %s", err, out)
	}
	for _, refused := range []string{"sealant install", "sealant remove --yes", "sealant policy --automatic off", "sealant reapply", "sealant restart"} {
		if out, err := k.Try("runuser -u bob -- " + refused); err == nil || !strings.Contains(out, "org.sealant.") {
			t.Errorf("%s: %v %s", refused, err, out)
		}
	}
	k.Run("runuser -u anna -- sealant restart --simulate >/dev/null || true")
	if out := k.Run("busctl introspect org.sealant.Agent1 /org/sealant/Agent1 org.sealant.Agent1"); !strings.Contains(out, ".SetAutomatic") {
		t.Errorf("%s", out)
	}
	// Without polkit only root may, and without a bus the socket still answers.
	k.Run("systemctl mask --now --runtime polkit.service")
	if out, err := k.Try("runuser -u anna -- sealant relaunch reader"); err == nil {
		t.Errorf("without polkit: %s", out)
	}
	k.Run("sealant relaunch reader")
	k.Run("systemctl reload-or-restart sealant; sealant ps >/dev/null")
}

// Programs are started apart from the agent's sandbox: what it may not, they may.
func TestLauncher(t *testing.T) {
	k := newKiosk(t, nil)
	k.Run("useradd -m -u 1000 anna")
	k.stage(k.a.ID)
	k.active("sealant-launch.socket")
	out := k.Run(`cat >/tmp/show <<'END'
grep -E "^(Uid|Gid|Groups|NoNewPrivs|Seccomp|CapBnd|CapEff):" /proc/self/status
cat /proc/self/cgroup /proc/self/attr/current; pwd; echo "$MARK"; ulimit -a; umask; cat /usr/lib/cryptexes/web/version; echo
END
		chmod 755 /tmp/show
		systemd-run --quiet --wait --pipe --uid=anna --unit=caller --working-directory=/var -p LimitNOFILE=777 -p UMask=0027 --setenv=MARK=here \
			sh -c 'sh /tmp/show; echo ----; sealant run -- /bin/sh /tmp/show'`)
	mine, theirs, _ := strings.Cut(out, "----\n")
	if theirs != strings.Replace(mine, "web base", "web (a)", 1) || !strings.Contains(mine, "web base") {
		t.Errorf("not as the caller has it:\n%s\nwant\n%s", theirs, mine)
	}
	if state := k.Run("systemctl show -P ActiveState sealant-launch.service"); state != "active\n" {
		t.Errorf("%q", state)
	}
	// A container that binds /usr gets the caller's view of it.
	for _, wrap := range []string{
		"unshare --mount --propagation private sh -c 'mkdir -p /tmp/c/usr && mount --rbind /usr /tmp/c/usr && cat /tmp/c/usr/lib/cryptexes/web/version'",
		"bwrap --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc --dev /dev cat /usr/lib/cryptexes/web/version",
		"systemd-nspawn --quiet --directory=/ --volatile=yes --register=no --keep-unit --bind-ro=/usr --pipe cat /usr/lib/cryptexes/web/version",
	} {
		if out, err := k.Try("systemd-run --quiet --wait --pipe -p Delegate=yes sealant run -- " + wrap); err != nil || !strings.Contains(out, "web (a)") {
			t.Errorf("a container that binds /usr does not see the content: %s: %v %s", wrap, err, out)
		}
	}
}

// The agent at rest is small, and a service killed or stuck comes back.
func TestAgentAtRest(t *testing.T) {
	k := newKiosk(t, nil)
	k.active("sealant.service")
	k.Run("sealant ps >/dev/null; sealant status >/dev/null")
	rss := func() int {
		text := k.Run("grep VmRSS /proc/$(systemctl show -P MainPID sealant)/status")
		n, err := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(text))
		must(t, err)
		return n
	}
	if n := rss(); n > 40<<10 {
		t.Errorf("%d KiB at rest", n)
	} else {
		t.Logf("%d KiB at rest", n)
	}
	score := k.Run("systemd-analyze security --no-pager sealant.service | tail -1")
	t.Log(score)
	if m := regexp.MustCompile(`: (\d+\.\d+)`).FindStringSubmatch(score); m == nil {
		t.Error(score)
	} else if n, _ := strconv.ParseFloat(m[1], 64); n > 6 {
		t.Errorf("exposed: %s", score)
	}
	k.Run("kill -9 $(systemctl show -P MainPID sealant)")
	k.Eventually("the agent is back", "systemctl is-active sealant && sealant ps >/dev/null")
	k.Run("systemd-analyze verify --man=no /usr/lib/systemd/system/sealant*.service /usr/lib/systemd/system/sealant-launch.socket")
}
