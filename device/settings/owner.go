package settings

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// ownerOf is the user whose socket is at the other end of a loopback connection, as
// the kernel knows it.
func ownerOf(c net.Conn) (uint32, error) {
	here, ok := c.LocalAddr().(*net.TCPAddr)
	there, ok2 := c.RemoteAddr().(*net.TCPAddr)
	if !ok || !ok2 {
		return 0, errors.New("not a TCP connection")
	}
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// Seen from the other end: its own address first.
	from, to := procAddress(there), procAddress(here)
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid …
		words := strings.Fields(sc.Text())
		if len(words) < 8 || words[1] != from || words[2] != to {
			continue
		}
		uid, err := strconv.ParseUint(words[7], 10, 32)
		return uint32(uid), err
	}
	if err := sc.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("no socket is at %s", there)
}

// procAddress writes an address as /proc/net/tcp does: the four bytes as a number of
// this machine's byte order, and the port, in hex.
func procAddress(a *net.TCPAddr) string {
	ip := a.IP.To4()
	if ip == nil {
		return ""
	}
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip), a.Port)
}
