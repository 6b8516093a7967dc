package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// secret is what the crafted document makes a flawed reader show.
const secret = "the kiosk's secret: 4711"

// tellReader is the story of a small program: its base release leaks a file on
// a crafted document, (a) refuses, (b) also refuses but dies on pictures.
func tellReader(s *story) error {
	server, err := s.readerDesk()
	if err != nil {
		return err
	}
	s.readerBoot(server)
	foreign := func() { s.refuseForeignTicket(server)() }
	for _, chapter := range []func(){s.readerFix, s.readerRemove, s.readerTamper, foreign, s.readerHarm, s.readerUpdate} {
		if s.failed > 0 {
			return nil // what follows builds on what failed
		}
		chapter()
	}
	return nil
}

// readerDesk is the vendor's first day: keys, images, a server.
func (s *story) readerDesk() (server string, err error) {
	s.chapter("The vendor")
	s.say("An operating system tree with one app in it: reader. The vendor makes keys and moves the app out of the tree into a cryptex.")
	if err := s.buildReader("os", "base"); err != nil {
		return "", err
	}
	s.run(vendor, "sealpub init vendor --product ExampleOS --os-version 42.3.0 --throwaway", exits(0))
	s.run(vendor, "sealpub image split --root os --cryptex web=usr/bin/reader --subtype app --out images", exits(0))
	s.run(vendor, "ls -l os/usr/bin/reader", shows("-> /usr/lib/cryptexes/web/usr/bin/reader"))
	s.run(vendor, "sealpub image inspect images/web.cryptex", shows("web"), shows("(?i)seal"))
	s.run(vendor, "sealpub release baseline --dir vendor images/web.cryptex", exits(0))
	if err := s.deliver("os", "images/web.cryptex"); err != nil {
		return "", fmt.Errorf("cannot deliver the baseline: %w", err)
	}
	server, err = s.serve("127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.say("the server is up at %s", server)
	return server, nil
}

// readerBoot is the device's first day: it boots, is enrolled, and leaks.
func (s *story) readerBoot(server string) {
	s.chapter("The device")
	s.check("make the device", s.plugIn("os", server, "kiosk-0417"))
	s.check("a secret, a crafted document, a menu with a picture", firstError(
		s.write("kiosk/etc/kiosk-secret", secret+"\n"),
		s.write("kiosk/var/docs/crafted.txt", "Dear reader,\n@include ../../../etc/kiosk-secret\n"),
		s.write("kiosk/var/docs/menu.txt", "Today's menu\n@picture soup.png\n"),
		s.write("kiosk/etc/sealant/apps.d/reader.toml", "name = \"Reader\"\ncryptexes = [\"web\"]\ncommand = [\"/usr/bin/reader\", \"--stay\", \"/var/lib/docs/menu.txt\"]\n"),
	))
	s.restart()
	token := s.run(vendor, "sealsrv enroll token new --dir vendor -q", exits(0))
	s.run(kiosk, "sealant enroll --token "+lastWord(token.output), exits(0))
	s.run(kiosk, "sealant status", shows("ExampleOS 42.3"), shows("web"), exits(0))
	s.run(kiosk, "reader /var/lib/docs/crafted.txt", shows(secret))
	s.say("LEAKED. That is CVE-2026-1101. Somebody leaves a reader open:")
	s.open("sealant run reader")
}

// readerFix is the first improvement: published, installed, relaunched, restarted.
func (s *story) readerFix() {
	s.chapter("The fix, in one app at once")
	s.check("build the fixed app", s.buildReader("new-a", "a"))
	s.run(vendor, buildA)
	s.run(vendor, releaseA, shows("bit-exact both ways"), exits(0))
	s.run(vendor, "sealsrv rollout start SI-2026-0001 --dir vendor --percent 100", exits(0))
	s.run(kiosk, "sealant check --why", exits(10), shows("SI-2026-0001"))
	s.run(kiosk, "sealant cve CVE-2026-1101", hides("(?i)fixed now"))
	installed := s.run(kiosk, "sealant install", shows("Nothing running was changed"), exits(0))
	s.run(kiosk, "sealant ps", shows("(?i)reader"), shows("sealant relaunch reader"))
	s.run(kiosk, "reader /var/lib/docs/crafted.txt", shows(secret))
	s.say("The rest of the system is as it was. Now one app is relaunched:")
	s.run(kiosk, "sealant relaunch reader", exits(0))
	s.run(kiosk, "sealant run -- reader /var/lib/docs/crafted.txt", shows("refused"), hides(secret), exits(3))
	s.run(kiosk, "sealant status", shows("SI-2026-0001"))
	s.chapter("The fix, everywhere")
	s.restart()
	s.run(kiosk, "reader /var/lib/docs/crafted.txt", shows("refused"), hides(secret), exits(3))
	s.run(kiosk, "sealant status", shows(`42\.3 \(a\)`), shows("Fixed now"))
	s.run(kiosk, "sealant verify", exits(0))
	s.measureRelaunch()
	s.figures("images/web-a.cryptex", installed.took)
}

// readerRemove takes the improvement away and puts it back, without a network.
func (s *story) readerRemove() {
	s.chapter("Removed, and put back without a download")
	s.say("The server is gone for a while; removal does not need it.")
	address := s.silence()
	s.run(kiosk, "sealant check", exits(40))
	s.run(kiosk, "sealant remove --yes", shows("CVE-2026-1101"), exits(0))
	s.restart()
	s.run(kiosk, "reader /var/lib/docs/crafted.txt", shows(secret))
	s.say("It leaks again, as it was told. The server comes back; a check leaves the removed improvement alone:")
	if _, err := s.serve(address); err != nil {
		s.check("start the server again", err)
		return
	}
	s.run(kiosk, "sealant check", shows("(?i)held|removed"))
	s.run(kiosk, "sealant reapply", exits(0), shows("no download"))
	s.restart()
	s.run(kiosk, "reader /var/lib/docs/crafted.txt", shows("refused"), hides(secret), exits(3))
	s.run(kiosk, "sealant history", shows("(?i)remove"), shows("(?i)reappl"))
}

// readerTamper changes one bit of the image that is in use.
func (s *story) readerTamper() {
	s.chapter("Tampering")
	images, _ := filepath.Glob(s.device.path("state/images/*"))
	var target string
	for _, image := range images {
		if info, err := os.Lstat(image); err == nil && info.Mode().IsRegular() {
			target = image
		}
	}
	if target == "" {
		s.check("find the improvement's image", fmt.Errorf("none of %d files under images is one", len(images)))
		return
	}
	s.say("One bit of the improvement's image is flipped, behind everybody's back:")
	s.check("flip a bit", flip(target, 4096*40))
	s.run(kiosk, "sealant verify", exits(32), shows("(?i)web"))
	r := s.restart()
	s.check("boot names the refused set and takes the baseline", mustShow(r, "(?i)refus", "(?i)base"))
	s.run(kiosk, "sealant status", shows("(?i)base"))
	s.check("put the bit back", flip(target, 4096*40))
	s.restart()
	s.run(kiosk, "sealant verify", exits(0))
}

// readerHarm is the second improvement: it fixes more and breaks pictures. One
// device recommends its removal, then the vendor recalls it from all.
func (s *story) readerHarm() {
	s.chapter("An improvement that harms")
	s.check("build (b)", s.buildReader("new-b", "b"))
	s.run(vendor, "sealpub image build --in new-b --out images/web-b.cryptex --name web --subtype app", exits(0))
	s.run(vendor, "sealpub release --dir vendor --id SI-2026-0002 --level 2 --previous SI-2026-0001 --cryptex web=images/web.cryptex:images/web-b.cryptex "+
		"--cve CVE-2026-1101! --cve 'CVE-2026-1142=A document could include itself for ever' --severity medium --title 'Reader: endless documents'", shows("bit-exact"), exits(0))
	s.run(vendor, "sealsrv rollout start SI-2026-0002 --dir vendor --percent 100", exits(0))
	s.run(kiosk, "sealant install", exits(0))
	s.restart()
	s.run(kiosk, "sealant status", shows(`\(b\)`))
	s.say("A month of use before it and three days with it pass, on a simulated clock, through the recorder that the agent counts with:")
	s.run(lab, "sealant-lab down kiosk")
	s.run(lab, "sealant-lab use kiosk --app reader --content base --days 30 --hours 2")
	s.run(lab, "sealant-lab use kiosk --app reader --content current --days 3 --hours 2 --crashes 3")
	s.run(lab, "sealant-lab boot kiosk")
	s.say("The vendor hears of crashes and lists the app. The list is the same for all; each device judges by its own crashes.")
	s.run(vendor, "sealsrv recommend add SI-2026-0002 reader --dir vendor", exits(0))
	s.run(kiosk, "sealant check", exits(0))
	s.run(kiosk, "sealant evidence", shows("(?i)reader"), hides("(?i)closed unexpectedly"))
	s.say("A document with a picture. This crash is real:")
	s.run(kiosk, "sealant run reader -- /var/lib/docs/menu.txt >/dev/null 2>&1; echo exit code $?", shows("exit code 134"))
	s.run(kiosk, "sleep 1; sealant evidence", shows("(?i)closed unexpectedly"), shows("CVE-2026-1142"))
	s.run(kiosk, "sealant status", shows("Advice reader"))
	s.run(kiosk, "sealant evidence keep", exits(0))
	s.run(kiosk, "sealant evidence explain --x0 0 --t0 60 --x1 2 --t1 5 --json", shows("29.0698"))
	s.run(kiosk, "sealant analytics", shows("(?i)off"))
	s.run(kiosk, "sealant analytics preview", exits(0))
	s.say("The vendor has seen enough and takes (b) back:")
	s.run(vendor, "sealsrv recall SI-2026-0002 --dir vendor --reason 'Reader closes on documents with pictures' --yes", exits(0))
	s.run(kiosk, "sealant check", exits(41), shows("took back"))
	s.restart()
	s.run(kiosk, "reader /var/lib/docs/menu.txt", shows(`\[picture soup.png\]`))
	s.run(kiosk, "reader /var/lib/docs/crafted.txt", shows("refused"), exits(3))
	s.run(kiosk, "sealant status", shows(`\(a\)`))
	s.run(vendor, "sealpub advisory render --dir vendor --out site && ls site", shows("index.html"))
}

// readerUpdate delivers a new baseline: what was for the old one is inert.
func (s *story) readerUpdate() {
	s.chapter("The next operating system update")
	s.say("Version 42.4 brings the fixed reader in its own baseline. What was for 42.3 is inert before the first program runs.")
	s.check("build the new tree", s.buildReader("os-42.4", "a"))
	s.run(vendor, "sealpub image split --root os-42.4 --cryptex web=usr/bin/reader --subtype app --out images-42.4")
	s.run(vendor, "sealpub release baseline --dir vendor --os-version 42.4.0 images-42.4/web.cryptex")
	s.check("deliver it", firstError(s.deliver("os-42.4", "images-42.4/web.cryptex"), s.device.down(), s.updateOS("os-42.4")))
	r := s.restart()
	s.check("boot says what it left behind", mustShow(r, "42\\.4"))
	s.run(kiosk, "reader /var/lib/docs/crafted.txt", shows("refused"), hides(secret), exits(3))
	s.run(kiosk, "sealant check", exits(0))
	s.run(kiosk, "sealant status", shows("ExampleOS 42.4"), shows("No improvement installed"))
	s.run(kiosk, "sealant verify", exits(0))
}

// measureRelaunch notes what `sealant run` costs beyond the program itself.
func (s *story) measureRelaunch() {
	const rounds = 20
	r := s.quiet(kiosk, fmt.Sprintf("t() { local a=$(date +%%s%%N); for i in $(seq %d); do \"$@\" >/dev/null; done; echo $(( ($(date +%%s%%N)-a)/%d )); }; t /bin/true; t sealant run -- /bin/true", rounds, rounds))
	var plain, through int64
	if _, err := fmt.Sscan(r.output, &plain, &through); err != nil {
		s.check("measure a relaunch", fmt.Errorf("%q: %w", r.output, err))
		return
	}
	ms := func(ns int64) float64 { return float64(ns) / float64(time.Millisecond) }
	s.note("starting a program", "%.1f ms plain, %.1f ms in the staged content", ms(plain), ms(through))
}
