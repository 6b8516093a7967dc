package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tellRefusals gives every command bad input and checks that it is refused
// with the right exit code before anything changed.
func tellRefusals(s *story) error {
	server, err := s.readerDesk()
	if err != nil {
		return err
	}
	s.refuseImages()
	s.refusePatches()
	s.readerBoot(server)
	s.check("build the fixed app", s.buildReader("new-a", "a"))
	s.run(vendor, buildA)
	s.refuseReleases()
	s.run(vendor, releaseA)
	s.run(vendor, "sealsrv rollout start SI-2026-0001 --dir vendor --percent 100")
	if s.failed > 0 {
		return nil
	}
	s.refuseOnDevice(server)
	s.run(kiosk, "sealant install")
	s.refuseForeignTicket(server)
	return nil
}

// The commands that make the first improvement of the reader.
const (
	buildA   = "sealpub image build --in new-a --out images/web-a.cryptex --name web --subtype app"
	releaseA = "sealpub release --dir vendor --id SI-2026-0001 --level 1 --cryptex web=images/web.cryptex:images/web-a.cryptex " +
		"--cve 'CVE-2026-1101!=Reader followed includes out of the document folder' --severity high --title 'Reader: documents could read any file'"
)

func (s *story) refuseImages() {
	s.chapter("Images")
	build := "sealpub image build --in %s --out bad.cryptex --name %s --subtype %s"
	s.run(vendor, fmt.Sprintf(build, "nowhere", "web", "app"), exits(1), shows("nowhere"))
	s.run(vendor, fmt.Sprintf(build, "os", "'Bad Name'", "app"), exits(2))
	s.run(vendor, fmt.Sprintf(build, "os", "web", "kernel"), exits(2))
	s.run(vendor, "mkdir -p odd && mkfifo odd/pipe && "+fmt.Sprintf(build, "odd", "web", "app"), exits(1), shows("pipe"))
	s.run(vendor, "test ! -e bad.cryptex")
	s.run(vendor, "head -c 100000 images/web.cryptex > short.cryptex; sealpub image inspect short.cryptex", exits(32))
	s.run(vendor, "cp images/web.cryptex flipped.cryptex")
	s.check("flip a bit of the data", flip(filepath.Join(s.dir, "flipped.cryptex"), 4096*100))
	s.run(vendor, "sealpub image verify flipped.cryptex", exits(32))
	s.run(vendor, "sealpub image verify images/web.cryptex")
	s.run(vendor, "sealpub image split --root os --cryptex web=no/such/file --out bad", exits(1))
	s.run(vendor, "test ! -e bad")
}

func (s *story) refusePatches() {
	s.chapter("Patches")
	s.check("two more releases of the app", firstError(s.buildReader("pa", "a"), s.buildReader("pb", "b")))
	for _, r := range []string{"pa", "pb"} {
		s.run(vendor, fmt.Sprintf("sealpub image build --in %s --out %s.cryptex --name web --subtype app", r, r))
	}
	s.run(vendor, "sealpub patch make images/web.cryptex pa.cryptex -o p")
	s.run(vendor, "sealpub patch apply images/web.cryptex p -o applied && cmp applied pa.cryptex")
	s.run(vendor, "sealpub patch apply pb.cryptex p -o wrong", exits(32))
	s.run(vendor, "sealpub patch apply nowhere p -o wrong", exits(1))
	s.run(vendor, "head -c 2000 p > short.patch; sealpub patch apply images/web.cryptex short.patch -o wrong", exits(32))
	s.run(vendor, "cp p flipped.patch")
	s.check("flip a bit of the patch", flip(filepath.Join(s.dir, "flipped.patch"), s.size("p")/2))
	s.run(vendor, "sealpub patch apply images/web.cryptex flipped.patch -o wrong", exits(32))
	s.run(vendor, "test ! -e wrong")
	s.run(vendor, "echo nonsense > nonsense; sealpub patch inspect nonsense", exits(32))
}

func (s *story) refuseReleases() {
	s.chapter("Releases")
	s.run(vendor, strings.Replace(releaseA, "SI-2026-0001", "'SI 1'", 1), exits(2))
	s.run(vendor, strings.Replace(releaseA, "images/web.cryptex:", "images/web-a.cryptex:", 1), exits(32), shows("(?i)baseline"))
	s.run(vendor, strings.Replace(releaseA, "images/web-a.cryptex", "flipped.cryptex", 1), exits(32))
	s.run(vendor, "cp -r new-a new-x && echo new > new-x/usr/bin/extra && sealpub image build --in new-x --out x.cryptex --name web --subtype app")
	s.run(vendor, strings.Replace(releaseA, "images/web-a.cryptex", "x.cryptex", 1), exits(1), shows("file-added"))
	s.run(vendor, "sealsrv rollout start SI-2026-0009 --dir vendor --percent 100", shows("(?i)unknown|no release|not"), fails())
	s.run(vendor, "sealsrv recall SI-2026-0009 --dir vendor --reason x --yes", fails())
}

func (s *story) refuseOnDevice(server string) {
	s.chapter("The device")
	s.run(kiosk, "sealant instal", exits(2))
	s.run(kiosk, "sealant install SI-2026-0009", exits(20))
	s.run(kiosk, "sealant enroll --token nonsense", fails())
	s.run(kiosk, "sealant reapply", fails())
	s.run(kiosk, "sealant remove --yes", fails())
	s.run(kiosk, "sealant verify --ticket /etc/hostname", exits(31))
	s.run(kiosk, "echo REFUSE | sealant policy --effective >/dev/null")

	s.say("A second change while one is under way:")
	s.run(kiosk, "flock /var/lib/sealant/lock sealant install", exits(50))
	s.say("A full disk:")
	s.run(kiosk, "mount -t tmpfs -o size=900k full /var/lib/sealant/downloads && mount -t tmpfs -o size=900k full /var/lib/sealant/images; "+
		"sealant install; code=$?; umount /var/lib/sealant/downloads /var/lib/sealant/images; exit $code", fails(), shows("(?i)space|free|full"))
	s.say("A server that does not answer:")
	s.run(kiosk, fmt.Sprintf("sed -i 's#%s#http://127.0.0.1:9#' /etc/sealant/agent.toml && sealant check", server), exits(40))
	s.run(kiosk, fmt.Sprintf("sed -i 's#http://127.0.0.1:9#%s#' /etc/sealant/agent.toml", server))
	s.say("A catalog in which somebody changed a byte:")
	timestamp := filepath.Join(s.dir, "vendor/repo/metadata/timestamp.json")
	saved, err := os.ReadFile(timestamp)
	s.check("change a byte of the catalog", firstError(err, flip(timestamp, int64(len(saved))/2)))
	s.run(kiosk, "sealant check", exits(33))
	s.check("change it back", os.WriteFile(timestamp, saved, 0o644))
	s.run(kiosk, "sealant check", exits(10))
	s.run(kiosk, "sealant status", shows("No improvement installed"))
}

// refuseForeignTicket gives the device the ticket of another one for the very
// same improvement. What it returns gives the device its own again.
func (s *story) refuseForeignTicket(server string) (restore func()) {
	restore = func() {}
	s.chapter("Another device's ticket")
	mine := s.device
	other := &device{dir: filepath.Join(s.dir, "other")}
	s.device = other
	s.check("make a second device", s.plugIn("os", server, "kiosk-0418"))
	s.restart()
	token := s.quiet(vendor, "sealsrv enroll token new --dir vendor -q")
	s.run(kiosk, "sealant enroll --token "+lastWord(token.output))
	s.run(kiosk, "sealant install")
	stolen, err := filepath.Glob(other.path("state/sets/SI-2026-0001-*/ticket*"))
	if err == nil && len(stolen) != 1 {
		err = fmt.Errorf("%d tickets found", len(stolen))
	}
	s.check("find its ticket", err)
	s.check("switch it off", other.down())
	s.say("The second device's ticket, for the very same improvement, is put in the place of the first one's:")
	s.device = mine
	if err != nil {
		return restore
	}
	place, _ := filepath.Glob(mine.path("state/sets/SI-2026-0001-*/ticket*"))
	if len(place) != 1 {
		s.check("find the place for it", fmt.Errorf("%d tickets found", len(place)))
		return restore
	}
	own, err1 := os.ReadFile(place[0])
	foreign, err2 := os.ReadFile(stolen[0])
	s.check("put it here", firstError(err1, err2, os.WriteFile(place[0], foreign, 0o644)))
	s.run(kiosk, "sealant verify", exits(31), shows("another device"))
	r := s.restart()
	s.check("boot refuses it and takes the baseline", mustShow(r, "(?i)another device", "(?i)baseline"))
	s.run(kiosk, "reader /var/lib/docs/crafted.txt", shows(secret))
	return func() {
		s.check("put its own ticket back", os.WriteFile(place[0], own, 0o644))
		s.restart()
		s.run(kiosk, "reader /var/lib/docs/crafted.txt", shows("refused"), hides(secret), exits(3))
	}
}
