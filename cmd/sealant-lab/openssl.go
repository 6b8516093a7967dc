package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tellOpenSSL is the story on real software: the two newest versions of
// Debian's libssl3 that the archive has, in an os cryptex, under the openssl
// program and a TLS server of this machine.
func tellOpenSSL(s *story) error {
	s.chapter("Two versions of libssl3 that Debian's archive has today")
	listed := s.run(vendor, "apt-cache madison libssl3", shows("libssl3"))
	older, newer, err := versions(listed.output)
	if err != nil {
		return err
	}
	for tree, version := range map[string]string{"os": older, "new": newer} {
		s.run(vendor, unpack(tree, version), exits(0))
	}
	s.chapter("The vendor")
	s.run(vendor, "sealpub init vendor --product ExampleOS --os-version 42.3.0 --throwaway", exits(0))
	s.run(vendor, "sealpub image split --root os --cryptex os=packages:libssl3 --out images", exits(0))
	s.run(vendor, "sealpub image split --root new --cryptex os=packages:libssl3 --out images-new", exits(0))
	s.run(vendor, "ls -l os/usr/lib/*/libssl.so.3", shows("-> /usr/lib/cryptexes/os/"))
	s.run(vendor, "sealpub release baseline --dir vendor images/os.cryptex", exits(0))
	if err := s.deliver("os", "images/os.cryptex"); err != nil {
		return err
	}
	server, err := s.serve("127.0.0.1:0")
	if err != nil {
		return err
	}
	s.run(vendor, fmt.Sprintf("sealpub release --dir vendor --id SI-2026-0001 --level 1 --cryptex os=images/os.cryptex:images-new/os.cryptex "+
		"--severity high --title 'libssl3 %s' --text 'See the changelog of libssl3.' --acknowledge version-changed", newer), shows("bit-exact"), exits(0))
	s.run(vendor, "sealsrv rollout start SI-2026-0001 --dir vendor --percent 100", exits(0))

	s.chapter("The device")
	s.check("make the device", firstError(s.plugIn("os", server, "kiosk-0417"),
		s.write("kiosk/etc/sealant/apps.d/tls.toml", "name = \"TLS server\"\ncryptexes = [\"os\"]\ncommand = [\"/usr/bin/openssl\", \"s_server\", \"-accept\", \"127.0.0.1:8443\", \"-nocert\", \"-quiet\"]\nmatch = [\"/usr/bin/openssl\"]\n")))
	s.restart()
	token := s.quiet(vendor, "sealsrv enroll token new --dir vendor -q")
	s.run(kiosk, "sealant enroll --token "+lastWord(token.output), exits(0))
	before := s.run(kiosk, "openssl version -a | head -2", exits(0))
	s.open("sealant run tls")

	s.chapter("The fix, in one service at once")
	installed := s.run(kiosk, "sealant install", exits(0))
	s.run(kiosk, "sealant ps", shows("(?i)tls"))
	s.run(kiosk, "openssl version", shows(library(older)))
	s.run(kiosk, "sealant run -- openssl version", shows(library(newer)))
	s.run(kiosk, "sealant relaunch tls", exits(0))
	s.run(kiosk, "sealant ps --proof", shows("(?i)tls"))
	s.chapter("The fix, everywhere")
	s.restart()
	after := s.run(kiosk, "openssl version -a | head -2", shows(library(newer)))
	s.run(kiosk, "sealant status", shows("(?i)active everywhere|SI-2026-0001"))
	s.run(kiosk, "sealant verify", exits(0))
	s.chapter("Side by side")
	fmt.Fprintf(s.out, "before  %s\nafter   %s\n", firstLine(before.output), firstLine(after.output))
	s.measureRelaunch()
	s.figures("images-new/os.cryptex", installed.took)
	return nil
}

// versions picks the newest version and the one before it from `apt-cache madison`.
func versions(madison string) (older, newer string, err error) {
	var found []string
	for _, line := range strings.Split(madison, "\n") {
		if cells := strings.Split(line, "|"); len(cells) == 3 {
			found = append(found, strings.TrimSpace(cells[1]))
		}
	}
	if len(found) < 2 || found[0] == found[1] {
		return "", "", fmt.Errorf("cannot tell the story: the archive has %d versions of libssl3, two are needed (apt-get update?)", len(found))
	}
	return found[1], found[0], nil
}

// unpack makes a tree with one package in it, as an image builder would.
func unpack(tree, version string) string {
	return fmt.Sprintf("mkdir -p %[1]s/var/lib/dpkg/info %[1]s/var/lib/dpkg/updates && touch %[1]s/var/lib/dpkg/status && "+
		"apt-get -qq -o APT::Sandbox::User=root download libssl3=%[2]s && dpkg --root=%[1]s --force-depends --unpack libssl3_%[2]s_*.deb >/dev/null", tree, version)
}

// library is how openssl names the upstream version of a package's version.
func library(version string) string {
	upstream, _, _ := strings.Cut(version, "-")
	return "Library: OpenSSL " + strings.ReplaceAll(upstream, ".", `\.`)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// figures notes what the improvement cost.
func (s *story) figures(image string, install time.Duration) {
	full := s.size(image)
	matches, _ := filepath.Glob(s.device.path("state/patches/*/*.patch"))
	var smallest int64
	for _, path := range matches {
		if info, err := os.Stat(path); err == nil && (smallest == 0 || info.Size() < smallest) {
			smallest = info.Size()
		}
	}
	if smallest > 0 && full > 0 {
		s.note("patch against image", "%d bytes for %d bytes, %.2f %%", smallest, full, 100*float64(smallest)/float64(full))
	}
	s.note("install", "%.1f s", install.Seconds())
}
