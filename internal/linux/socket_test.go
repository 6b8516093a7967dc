package linux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/test/namespace"
)

func pair(t *testing.T) (client, server *net.UnixConn) {
	t.Helper()
	dir := namespace.Dir(t)
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.UnixConn), s.(*net.UnixConn)
}

func TestPeer(t *testing.T) {
	_, server := pair(t)
	peer, err := PeerOf(server)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	groups, err := unix.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if peer.PID != os.Getpid() || peer.User.UID != 0 || !slices.Equal(peer.User.Groups, groups) || peer.Handle().Ended() {
		t.Errorf("%+v, my groups %v", peer, groups)
	}
}

func TestSendAndReceive(t *testing.T) {
	client, server := pair(t)
	dir := namespace.Dir(t)
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("through the socket"); err != nil {
		t.Fatal(err)
	}
	// Larger than what a socket buffers at once.
	long := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sent := make(chan error, 1)
	go func() { sent <- errors.Join(Send(client, long, f, f), Send(client, nil), Send(client, []byte("last"))) }()
	message, files, err := Receive(server, len(long))
	if err != nil || !bytes.Equal(message, long) || len(files) != 2 {
		t.Fatalf("%d bytes, %d files, %v", len(message), len(files), err)
	}
	if same, err := SameFile(files[1], f); err != nil || !same {
		t.Errorf("another file arrived: %v", err)
	}
	flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("received descriptor is inherited: %#x, %v", flags, err)
	}
	for _, f := range files {
		f.Close()
	}
	if message, files, err = Receive(server, 10); err != nil || len(message) != 0 || files != nil {
		t.Errorf("%q, %v, %v", message, files, err)
	}
	if message, _, err = Receive(server, 4); err != nil || string(message) != "last" {
		t.Errorf("%q, %v", message, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	client.Close()
	if _, _, err = Receive(server, 4); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestReceiveRefuses(t *testing.T) {
	t.Run("long", func(t *testing.T) {
		client, server := pair(t)
		client.Write(binary.BigEndian.AppendUint32(nil, 1<<31))
		if _, _, err := Receive(server, 1<<20); err == nil || !strings.Contains(err.Error(), "too long") {
			t.Error(err)
		}
	})
	t.Run("short", func(t *testing.T) {
		client, server := pair(t)
		client.Write([]byte{0, 0, 0, 9, 'x'})
		client.Close()
		if _, _, err := Receive(server, 1<<20); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
	t.Run("too many files", func(t *testing.T) {
		client, server := pair(t)
		before := namespace.Counted(t, "/none").Files
		var files []*os.File
		for range maxFiles + 3 {
			files = append(files, os.Stdout)
		}
		if err := Send(client, []byte("x"), files...); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Receive(server, 10); err == nil || !strings.Contains(err.Error(), "too many") {
			t.Error(err)
		}
		if after := namespace.Counted(t, "/none").Files; after != before {
			t.Errorf("%d descriptors stay open", after-before)
		}
	})
}

func TestTerminal(t *testing.T) {
	user, program, err := OpenTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	defer program.Close()
	if !Terminal(program) || Terminal(devNull(t)) {
		t.Error("terminals are not told apart")
	}
	if err := CopyTerminalSize(program, user); err != nil {
		t.Error(err)
	}
	if _, err := program.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, err := user.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "hello") {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

func devNull(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A file whose calls wait in the kernel is a connection as well.
func TestWaitingSockets(t *testing.T) {
	talk := func(ours, theirs *os.File) {
		t.Helper()
		defer ours.Close()
		go func() {
			if err := Send(ours, bytes.Repeat([]byte("order"), 1<<18), os.Stdin); err != nil {
				t.Error(err)
			}
			HangUp(ours)
		}()
		text, files, err := Receive(theirs, 5<<18)
		if err != nil || len(text) != 5<<18 || !bytes.HasSuffix(text, []byte("order")) || len(files) != 1 {
			t.Fatalf("%d bytes, %d files, %v", len(text), len(files), err)
		}
		files[0].Close()
		if _, _, err := Receive(theirs, 5); !errors.Is(err, io.EOF) {
			t.Errorf("after the other end has hung up: %v", err)
		}
		theirs.Close()
	}
	ours, theirs, err := SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	talk(ours, theirs)

	path := filepath.Join(namespace.Dir(t), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = Connect(path); err != nil {
		t.Fatal(err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if theirs, err = conn.File(); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(int(theirs.Fd()), false); err != nil {
		t.Fatal(err)
	}
	talk(ours, theirs)
	if _, err := Connect(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nobody listens: %v", err)
	}
	if _, _, err := Receive(devNull(t), 5); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("no socket: %v", err)
	}
}
