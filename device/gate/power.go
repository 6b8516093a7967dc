package gate

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sealant-os/sealant/device/polkit"
)

// Power is how a machine is powered.
type Power struct {
	Mains   bool // connected, or a machine without any battery
	Battery bool // it has a battery of its own
	Percent int  // charge of the fullest battery
}

// ReadPower reads /sys/class/power_supply below root. Batteries of mice and
// the like (scope "Device") don't count. What can't be read is taken as mains:
// an installation may wait for a battery, never for a broken sensor.
func ReadPower(root string) Power {
	dir := filepath.Join(root, "sys/class/power_supply")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Power{Mains: true}
	}
	var p Power
	charging := false
	for _, e := range entries {
		get := func(name string) string {
			f, err := os.Open(filepath.Join(dir, e.Name(), name))
			if err != nil {
				return ""
			}
			defer f.Close()
			b := make([]byte, 64)
			n, _ := f.Read(b)
			return strings.TrimSpace(string(b[:n]))
		}
		switch get("type") {
		case "Mains", "USB", "Wireless":
			p.Mains = p.Mains || get("online") == "1" || get("online") == "2"
		case "Battery":
			n, err := strconv.Atoi(get("capacity"))
			if get("scope") == "Device" || get("present") == "0" || err != nil || n < 0 || n > 100 {
				continue
			}
			p.Battery = true
			p.Percent = max(p.Percent, n)
			// Many machines list no mains at all; their battery's status tells.
			switch get("status") {
			case "Charging", "Full", "Not charging":
				charging = true
			}
		}
	}
	p.Mains = p.Mains || charging || !p.Battery
	return p
}

// Metered says whether the network of the machine whose files are below root costs
// money by volume. Mode is the configuration's word: yes, no, or auto, which asks
// NetworkManager; without an answer the network counts as not metered.
func Metered(ctx context.Context, root, mode string) bool {
	switch mode {
	case "yes":
		return true
	case "no":
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := dbus.Connect(polkit.Bus(root), dbus.WithContext(ctx))
	if err != nil {
		return false
	}
	defer conn.Close()
	var answer dbus.Variant
	err = conn.Object("org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager").CallWithContext(ctx,
		"org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, "org.freedesktop.NetworkManager", "Metered").Store(&answer)
	word, _ := answer.Value().(uint32)
	return err == nil && meteredWord(word)
}

// meteredWord reads NMMetered: 1 is yes, 3 is guessed yes.
func meteredWord(word uint32) bool { return word == 1 || word == 3 }
