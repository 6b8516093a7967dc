package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/internal/fault"
)

// mapperMinor is MAPPER_CTRL_MINOR of linux/miscdevice.h.
const mapperMinor = 236

// mapperBuffer is the size of a request to the device mapper, in bytes: more
// than any answer that is asked for here.
const mapperBuffer = 64 << 10

// mapper is the device mapper's control device. Its requests are a struct
// dm_ioctl (linux/dm-ioctl.h) and what belongs to it in one buffer:
//
//	 0  12  version of the interface: 4, 0, 0    40   8  device number
//	12   4  size of the buffer                   48 128  name of the device
//	16   4  where the data begins                176 129  UUID of the device
//	20   4  number of targets                    312      data
//	24   4  how often the device is open
//	28   4  flags
//
// in the machine's byte order.
type mapper struct{ control *os.File }

// openMapper opens the device mapper. Where the kernel has none the error is
// a *fault.Unsupported.
func openMapper() (mapper, error) {
	control, err := openMisc("/dev/mapper/control", mapperMinor)
	if errors.Is(err, os.ErrNotExist) {
		return mapper{}, &fault.Unsupported{Feature: "the device mapper (/dev/mapper/control)"}
	}
	if err != nil {
		return mapper{}, fmt.Errorf("cannot open the device mapper: %w", err)
	}
	return mapper{control}, nil
}

func (m mapper) close() { m.control.Close() }

// request is one request to the device mapper, and its answer.
type request struct {
	name, uuid string
	device     Device // instead of a name
	flags      uint32
	targets    uint32
	data       []byte
}

// answer is what the device mapper told.
type answer struct {
	device  Device
	flags   uint32
	open    uint32
	targets uint32
	data    []byte
}

func (m mapper) do(command uintptr, r request) (answer, error) {
	order := binary.NativeEndian
	buf := make([]byte, mapperBuffer)
	if len(r.name) >= unix.DM_NAME_LEN || len(r.uuid) >= unix.DM_UUID_LEN || len(r.data) > len(buf)-unix.SizeofDmIoctl {
		return answer{}, errors.New("cannot ask the device mapper: the request is too large")
	}
	order.PutUint32(buf, 4)
	order.PutUint32(buf[12:], uint32(len(buf)))
	order.PutUint32(buf[16:], unix.SizeofDmIoctl)
	order.PutUint32(buf[20:], r.targets)
	order.PutUint32(buf[28:], r.flags)
	if r.device != (Device{}) {
		// The kernel's huge_encode_dev, which for our numbers is new_encode_dev.
		order.PutUint64(buf[40:], unix.Mkdev(r.device.Major, r.device.Minor))
	}
	copy(buf[48:], r.name)
	copy(buf[176:], r.uuid)
	copy(buf[unix.SizeofDmIoctl:], r.data)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, m.control.Fd(), command, uintptr(unsafe.Pointer(&buf[0])))
	if errno != 0 {
		return answer{}, errno
	}
	a := answer{
		device: device(order.Uint64(buf[40:])), flags: order.Uint32(buf[28:]), open: order.Uint32(buf[24:]), targets: order.Uint32(buf[20:]),
	}
	if a.flags&unix.DM_BUFFER_FULL_FLAG != 0 {
		return answer{}, errors.New("the device mapper's answer is too large")
	}
	// An answer without data is shorter than where data would begin.
	if start, size := order.Uint32(buf[16:]), order.Uint32(buf[12:]); start < size && int(size) <= len(buf) {
		a.data = buf[start:size]
	}
	return a, nil
}

// create makes a device with one target. It is not to be seen by anybody before
// it is whole, and it is gone if anything fails.
func (m mapper) create(name, uuid, target string, sectors uint64, table string) (Device, error) {
	made, err := m.do(unix.DM_DEV_CREATE, request{name: name, uuid: uuid})
	if err != nil {
		return Device{}, err
	}
	// struct dm_target_spec: first sector, sectors, status, next, type[16].
	spec := make([]byte, unix.SizeofDmTargetSpec, unix.SizeofDmTargetSpec+len(table)+8)
	binary.NativeEndian.PutUint64(spec[8:], sectors)
	copy(spec[24:], target)
	spec = append(spec, table...)
	spec = append(spec, make([]byte, 8-len(spec)%8)...)
	binary.NativeEndian.PutUint32(spec[20:], uint32(len(spec)))
	_, err = m.do(unix.DM_TABLE_LOAD, request{name: name, flags: unix.DM_READONLY_FLAG, targets: 1, data: spec})
	if err == nil {
		_, err = m.do(unix.DM_DEV_SUSPEND, request{name: name}) // without a flag it resumes
	}
	if err != nil {
		_, gone := m.do(unix.DM_DEV_REMOVE, request{name: name})
		return Device{}, errors.Join(err, gone)
	}
	return made.device, nil
}

// release has the kernel remove the device with its last user: now, if there
// is none.
func (m mapper) release(name string) error {
	_, err := m.do(unix.DM_DEV_REMOVE, request{name: name, flags: unix.DM_DEFERRED_REMOVE})
	return err
}

// status asks a device with one target for the target's name and its status,
// or (with DM_STATUS_TABLE_FLAG) its table.
func (m mapper) status(d Device, flags uint32) (target, text string, err error) {
	a, err := m.do(unix.DM_TABLE_STATUS, request{device: d, flags: flags | unix.DM_NOFLUSH_FLAG})
	if err != nil {
		return "", "", err
	}
	if a.targets != 1 || len(a.data) < unix.SizeofDmTargetSpec {
		return "", "", fmt.Errorf("device %s has %d targets", d, a.targets)
	}
	return unix.ByteSliceToString(a.data[24:40]), unix.ByteSliceToString(a.data[unix.SizeofDmTargetSpec:]), nil
}

// devices lists the devices whose name begins with prefix.
func (m mapper) devices(prefix string) (map[string]Device, error) {
	a, err := m.do(unix.DM_LIST_DEVICES, request{})
	if err != nil {
		return nil, err
	}
	found := map[string]Device{}
	// struct dm_name_list: device, next, name.
	for data := a.data; len(data) > 12; {
		dev, next := binary.NativeEndian.Uint64(data), binary.NativeEndian.Uint32(data[8:])
		if name := unix.ByteSliceToString(data[12:]); dev != 0 && strings.HasPrefix(name, prefix) {
			found[name] = device(dev)
		}
		if next == 0 || int(next) > len(data) {
			break
		}
		data = data[next:]
	}
	return found, nil
}
