package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// newInit is the first process of a pretend device, inside its namespaces. It
// lays the mounts, lets sealant-boot attach the cryptexes, starts the agent,
// says on file descriptor 3 that the device is up, and reaps.
func newInit() *cobra.Command {
	return &cobra.Command{
		Use: "init DIR", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ready := os.NewFile(3, "ready")
			d := &device{dir: args[0]}
			if err := bringUp(d); err != nil {
				fmt.Fprintln(ready, err)
				return err
			}
			fmt.Fprintln(ready, "up")
			ready.Close()
			reap()
			return nil
		},
	}
}

func bringUp(d *device) error {
	if err := layMounts(d); err != nil {
		return err
	}
	if name, err := os.ReadFile(d.path("etc/hostname")); err == nil {
		if err := syscall.Sethostname([]byte(strings.TrimSpace(string(name)))); err != nil {
			return fmt.Errorf("cannot set the host name: %w", err)
		}
	}
	boot := exec.Command("sealant-boot")
	boot.Stdout, boot.Stderr = os.Stdout, os.Stderr
	if err := boot.Run(); err != nil {
		// As on a real device, what runs from no cryptex still comes up.
		fmt.Fprintf(os.Stderr, "sealant-boot: %v\n", err)
	}
	agent := exec.Command("sealant", "agent")
	agent.Stdout, agent.Stderr = os.Stdout, os.Stderr
	if err := agent.Start(); err != nil {
		return fmt.Errorf("cannot start the agent: %w", err)
	}
	for range 100 {
		if _, err := os.Stat("/run/sealant/agent.sock"); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the agent did not come up in 5 s")
}

// layMounts gives the namespace its own /usr, /etc, /var/lib and /run.
func layMounts(d *device) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	mounts := []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"overlay", "/usr", "overlay", syscall.MS_RDONLY, "lowerdir=" + d.path("os/usr") + ":/usr"},
		{"overlay", "/etc", "overlay", 0, fmt.Sprintf("lowerdir=/etc,upperdir=%s,workdir=%s", d.path("etc"), d.path("work/etc"))},
		{"overlay", "/var/lib", "overlay", 0, fmt.Sprintf("lowerdir=/var/lib,upperdir=%s,workdir=%s", d.path("var"), d.path("work/var"))},
		{d.path("state"), "/var/lib/sealant", "", syscall.MS_BIND, ""},
		{"tmpfs", "/run", "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=755,size=64m"},
	}
	for _, m := range mounts {
		if err := syscall.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("cannot mount %s: %w", m.target, err)
		}
	}
	// A service's private namespace must see later mounts of the device.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("cannot share mounts: %w", err)
	}
	return os.MkdirAll(filepath.Join("/run", "lock"), 0o755)
}

// reap collects every child until the device is switched off.
func reap() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err == syscall.ECHILD {
			time.Sleep(200 * time.Millisecond)
		}
	}
}
