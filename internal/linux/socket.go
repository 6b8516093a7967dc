package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxFiles bounds how many descriptors one message may carry.
const maxFiles = 9

// Peer is who connected to a unix socket. The kernel took it down when the
// connection was made.
type Peer struct {
	PID    int
	User   User
	handle Pidfd
}

// PeerOf asks the kernel who is at the other end. Handle is a handle on the
// process; on kernels before 6.5 it is taken by number, and so the caller must
// compare what it reads of the process with User before relying on it.
func PeerOf(conn syscall.Conn) (*Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	peer := new(Peer)
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = peer.read(int(fd)) }); err != nil {
		return nil, err
	}
	if inner != nil {
		return nil, fmt.Errorf("cannot tell who is calling: %w", inner)
	}
	return peer, nil
}

func (p *Peer) read(fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	if cred.Pid <= 0 {
		return errors.New("the caller lives in another pid namespace")
	}
	p.PID = int(cred.Pid)
	p.User = User{UID: int(cred.Uid), GID: int(cred.Gid)}
	if p.User.Groups, err = peerGroups(fd); err != nil {
		return err
	}
	handle, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err == nil {
		p.handle = PidfdOf(os.NewFile(uintptr(handle), "peer"))
		return nil
	}
	p.handle, err = OpenPidfd(p.PID)
	return err
}

// peerGroups reads the supplementary groups that the caller had.
func peerGroups(fd int) ([]int, error) {
	buf := make([]uint32, 64)
	for {
		size := uint32(4 * len(buf))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		const most = 65536 // NGROUPS_MAX
		switch {
		case errno == 0:
			groups := make([]int, size/4)
			for i := range groups {
				groups[i] = int(buf[i])
			}
			return groups, nil
		case errno == unix.ERANGE && size > uint32(4*len(buf)) && size <= 4*most:
			buf = make([]uint32, size/4)
		default:
			return nil, lacking(errno, "the groups of a caller", "4.13")
		}
	}
}

// Handle is the handle on the calling process.
func (p *Peer) Handle() Pidfd { return p.handle }

// Close lets go of the handle.
func (p *Peer) Close() error { return p.handle.Close() }

// Conn is a connected unix stream socket: a *net.UnixConn, or a file of which every
// call waits in the kernel. The latter is for programs that have nothing else to do,
// and start sooner without package net.
type Conn interface {
	syscall.Conn
	io.ReadWriter
}

// SocketPair makes two sockets that are connected to each other: one for this
// program, one to hand to a child.
func SocketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a pair of sockets: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// Connect connects to the unix socket at path.
func Connect(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make a socket: %w", err)
	}
	if err := ignoringEINTR(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) }); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot connect to %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// HangUp ends a connection, also for who waits for its other end in another goroutine.
func HangUp(conn *os.File) { _ = unix.Shutdown(int(conn.Fd()), unix.SHUT_RDWR) }

// Send writes one message, its length before it, and open files with it.
func Send(conn Conn, message []byte, files ...*os.File) error {
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(message)), uint32(len(message)))
	frame = append(frame, message...)
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot send: %w", err)
	}
	n := 0
	werr := raw.Write(func(fd uintptr) bool {
		err = ignoringEINTR(func() (err error) {
			n, err = unix.SendmsgN(int(fd), frame, rights, nil, unix.MSG_NOSIGNAL)
			return err
		})
		return !errors.Is(err, unix.EAGAIN)
	})
	if err = errors.Join(werr, err); err == nil && n < len(frame) {
		_, err = conn.Write(frame[n:])
	}
	if err != nil {
		return fmt.Errorf("cannot send: %w", err)
	}
	return nil
}

// Receive reads one message of at most limit bytes, and the files that came
// with it. The caller closes the files.
func Receive(conn Conn, limit int) (message []byte, files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			files = nil
		}
	}()
	var head [4]byte
	n, files, err := receiveFirst(conn, head[:])
	if err != nil {
		return nil, files, err
	}
	if n == 0 {
		return nil, files, io.EOF
	}
	if _, err = io.ReadFull(conn, head[n:]); err != nil {
		return nil, files, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if int64(size) > int64(limit) {
		return nil, files, fmt.Errorf("cannot receive: a message of %d bytes is too long", size)
	}
	message = make([]byte, size)
	_, err = io.ReadFull(conn, message)
	return message, files, err
}

// receiveFirst reads the first bytes of a message, with which its files come.
func receiveFirst(conn Conn, head []byte) (n int, files []*os.File, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	oob, flags := 0, 0
	rerr := raw.Read(func(fd uintptr) bool {
		err = ignoringEINTR(func() (err error) {
			n, oob, flags, _, err = unix.Recvmsg(int(fd), head, rights, unix.MSG_CMSG_CLOEXEC)
			return err
		})
		return !errors.Is(err, unix.EAGAIN)
	})
	if rerr != nil {
		return 0, nil, rerr
	}
	if err != nil {
		return 0, nil, fmt.Errorf("cannot receive: %w", err)
	}
	if files, err = receivedFiles(rights[:oob]); err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = errors.New("cannot receive: too many files")
	}
	return n, files, err
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func receivedFiles(rights []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("cannot receive files: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // another kind of message
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}
