package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The vendor's desk: a folder with an operating system tree (os), the vendor's
// keys and repository (vendor), and a server on this machine.

// silence stops the server and returns the address that it listened at.
func (s *story) silence() (address string) {
	if s.server != nil && s.server.Process != nil {
		s.server.Process.Kill()
		s.server.Wait()
	}
	return strings.TrimPrefix(s.address, "http://")
}

// serve starts the server on the desk and returns its URL.
func (s *story) serve(listen string) (string, error) {
	line := "sealsrv dev --dir vendor --listen " + listen
	if !s.terse {
		fmt.Fprintf(s.out, "%s%s &\n", s.screen.Strong("vendor$ "), line)
	}
	cmd, err := s.command(vendor, "exec "+line)
	if err != nil {
		return "", err
	}
	log, err := os.Create(filepath.Join(s.dir, "server.log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("cannot start the server: %w", err)
	}
	s.server = cmd
	for range 100 {
		time.Sleep(50 * time.Millisecond)
		printed, _ := os.ReadFile(log.Name())
		for lines := bufio.NewScanner(bytes.NewReader(printed)); lines.Scan(); {
			if _, rest, ok := strings.Cut(lines.Text(), "http://127.0.0.1:"); ok {
				port, _, _ := strings.Cut(rest+" ", " ")
				s.address = "http://127.0.0.1:" + strings.TrimRight(port, "/")
				return s.address, nil
			}
		}
	}
	printed, _ := os.ReadFile(log.Name())
	return "", fmt.Errorf("the server did not come up in 5 s:\n%s", printed)
}

// deliver puts what the device's operating system image carries of Sealant in
// the tree: the baseline, its images, the roots of trust, the public log's key.
func (s *story) deliver(tree string, images ...string) error {
	for from, to := range map[string]string{
		"vendor/base.json":       "usr/lib/sealant/base.json",
		"vendor/root.json":       "usr/lib/sealant/root.json",
		"vendor/ticket-root.pem": "usr/lib/sealant/ticket-root.pem",
		"vendor/log-key.txt":     "usr/lib/sealant/log-key.txt",
	} {
		if err := s.copy(from, filepath.Join(tree, to)); err != nil {
			return err
		}
	}
	for _, image := range images {
		if err := s.copy(image, filepath.Join(tree, "usr/lib/sealant/base", filepath.Base(image))); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) copy(from, to string) error {
	data, err := os.ReadFile(filepath.Join(s.dir, from))
	if err != nil {
		return err
	}
	to = filepath.Join(s.dir, to)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// plugIn makes the device from an operating system tree and gives it its
// configuration; it does not boot it.
func (s *story) plugIn(tree, server, hostname string) error {
	if err := os.MkdirAll(s.device.dir, 0o755); err != nil {
		return err
	}
	if err := copyTree(filepath.Join(s.dir, tree), s.device.path("os")); err != nil {
		return err
	}
	return s.device.make(hostname, server)
}

// updateOS replaces the device's operating system tree while it is down, as an
// image-based update does.
func (s *story) updateOS(tree string) error {
	if err := os.RemoveAll(s.device.path("os")); err != nil {
		return err
	}
	return copyTree(filepath.Join(s.dir, tree), s.device.path("os"))
}

// buildReader puts the demo's app of one release into a tree.
func (s *story) buildReader(tree, release string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	source := filepath.Join(filepath.Dir(self), "reader", release)
	if _, err := os.Stat(source); err != nil {
		return fmt.Errorf("cannot find the demo's app: %w (make build makes it)", err)
	}
	to := filepath.Join(s.dir, tree, "usr/bin/reader")
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("install", "-m", "755", source, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot install the demo's app: %s", out)
	}
	return nil
}

// flip changes one bit of a file.
func flip(path string, offset int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b[:], offset)
	return err
}
