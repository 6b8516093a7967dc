package exits

import (
	"github.com/cilium/ebpf/asm"

	"github.com/sealant-os/sealant/internal/layout"
)

// fields is where this kernel keeps the fields that the programs read, in bytes.
type fields struct {
	tgid, signal, exitCode, ptrace, parent, leader, started, nsproxy int16 // in struct task_struct
	live, groupExitCode                                              int16 // in struct signal_struct
	mountNamespace                                                   int16 // in struct nsproxy
	namespaceNumber                                                  int16 // in struct mnt_namespace
	binary                                                           int16 // in struct linux_binprm: the file
	inode                                                            int16 // in struct file
	number, super                                                    int16 // in struct inode
	device                                                           int16 // in struct super_block
}

func offsets(kernel *layout.Kernel) (fields, error) {
	at := fields{
		tgid:            kernel.Field("task_struct", "tgid"),
		signal:          kernel.Field("task_struct", "signal"),
		exitCode:        kernel.Field("task_struct", "exit_code"),
		ptrace:          kernel.Field("task_struct", "ptrace"),
		parent:          kernel.Field("task_struct", "real_parent"),
		leader:          kernel.Field("task_struct", "group_leader"),
		started:         kernel.Field("task_struct", "start_boottime"),
		nsproxy:         kernel.Field("task_struct", "nsproxy"),
		live:            kernel.Field("signal_struct", "live"),
		groupExitCode:   kernel.Field("signal_struct", "group_exit_code"),
		mountNamespace:  kernel.Field("nsproxy", "mnt_ns"),
		namespaceNumber: kernel.Field("mnt_namespace", "ns", "inum"),
		binary:          kernel.Field("linux_binprm", "file"),
		inode:           kernel.Field("file", "f_inode"),
		number:          kernel.Field("inode", "i_ino"),
		super:           kernel.Field("inode", "i_sb"),
		device:          kernel.Field("super_block", "s_dev"),
	}
	return at, kernel.Err()
}

// Slots of the programs' stack, below the frame pointer.
const (
	slotRecord = -recordSize    // the record, as struct record lies
	slotKey    = slotRecord - 8 // a process number, as a map's key
	slotRoot   = slotKey - 8    // its root, as a map's value
	slotWanted = slotRoot - 16  // a program, as a map's key
)

// Fields of the record, from slotRecord on.
const (
	fieldAt, fieldCgroup, fieldStart                      = 0, 8, 16
	fieldPID, fieldRoot, fieldCode, fieldParent           = 24, 28, 32, 36
	fieldNamespace, fieldTrace, fieldCommand, fieldDevice = 40, 44, 48, 72
	fieldInode, fieldBegan                                = 64, 76
)

// onFork lets the children of tracked processes inherit their root. Its arguments
// are the parent's and the child's task.
func (b *BPF) onFork(at fields) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R7, asm.R1, 8, asm.DWord),
		asm.LoadMem(asm.R8, asm.R6, at.tgid, asm.Word),
		asm.LoadMem(asm.R9, asm.R7, at.tgid, asm.Word),
		asm.JEq.Reg(asm.R8, asm.R9, "out"), // a thread, not a process
		asm.StoreMem(asm.RFP, slotKey, asm.R8, asm.Word),
		asm.LoadMapPtr(asm.R1, b.tracked.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, slotRoot, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, slotKey, asm.R9, asm.Word),
		asm.LoadMapPtr(asm.R1, b.tracked.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotKey),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, slotRoot),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"), asm.Return(),
	}
}

// onExec tells when a process begins to run a watched program, and makes it a root
// unless it is tracked already. Its arguments are the task, its number before, and
// the new program.
func (b *BPF) onExec(at fields) asm.Instructions {
	code := asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R7, asm.R1, 16, asm.DWord),
	}
	code = append(code, empty()...)
	code = append(code,
		asm.LoadMem(asm.R1, asm.R7, at.binary, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "out"),
		asm.LoadMem(asm.R1, asm.R1, at.inode, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "out"),
		asm.LoadMem(asm.R2, asm.R1, at.number, asm.DWord),
		asm.StoreMem(asm.RFP, slotWanted, asm.R2, asm.DWord),
		asm.StoreMem(asm.RFP, slotRecord+fieldInode, asm.R2, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, at.super, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "out"),
		asm.LoadMem(asm.R2, asm.R1, at.device, asm.Word),
		asm.StoreMem(asm.RFP, slotWanted+8, asm.R2, asm.DWord),
		asm.StoreMem(asm.RFP, slotRecord+fieldDevice, asm.R2, asm.Word),
		asm.LoadMapPtr(asm.R1, b.programs.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotWanted),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R8, asm.R6, at.tgid, asm.Word),
		asm.StoreMem(asm.RFP, slotRecord+fieldPID, asm.R8, asm.Word),
		asm.StoreMem(asm.RFP, slotRecord+fieldRoot, asm.R8, asm.Word),
		asm.StoreMem(asm.RFP, slotKey, asm.R8, asm.Word),
		asm.StoreMem(asm.RFP, slotRoot, asm.R8, asm.Word),
		asm.LoadMapPtr(asm.R1, b.tracked.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotKey),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, slotRoot),
		asm.Mov.Imm(asm.R4, 1), // BPF_NOEXIST
		asm.FnMapUpdateElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"), // tracked already
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreMem(asm.RFP, slotRecord+fieldBegan, asm.R1, asm.Word),
	)
	return append(code, b.tell(at)...)
}

// empty zeroes the record and the keys.
func empty() asm.Instructions {
	code := asm.Instructions{asm.Mov.Imm(asm.R0, 0)}
	for slot := int16(slotWanted); slot < 0; slot += 8 {
		code = append(code, asm.StoreMem(asm.RFP, slot, asm.R0, asm.DWord))
	}
	return code
}

// onExit runs for every thread that ends and goes on only for the last one of
// its process: then signal->live is 0. Its argument is the thread's task.
func (b *BPF) onExit(at fields) asm.Instructions {
	code := asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R7, asm.R6, at.signal, asm.DWord),
		asm.JEq.Imm(asm.R7, 0, "out"),
		asm.LoadMem(asm.R1, asm.R7, at.live, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "out"),
	}
	code = append(code, empty()...)
	// The root of this process, if it has one.
	code = append(code,
		asm.LoadMem(asm.R8, asm.R6, at.tgid, asm.Word),
		asm.StoreMem(asm.RFP, slotRecord+fieldPID, asm.R8, asm.Word),
		asm.StoreMem(asm.RFP, slotKey, asm.R8, asm.Word),
		asm.LoadMapPtr(asm.R1, b.tracked.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotKey),
		asm.FnMapLookupElem.Call(),
		asm.Mov.Imm(asm.R9, 0),
		asm.JEq.Imm(asm.R0, 0, "code"),
		asm.LoadMem(asm.R9, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, slotRecord+fieldRoot, asm.R9, asm.Word),
		asm.LoadMapPtr(asm.R1, b.tracked.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotKey),
		asm.FnMapDeleteElem.Call(),
	)
	// How it ended: the process's code, else this thread's.
	code = append(code,
		asm.LoadMem(asm.R1, asm.R7, at.groupExitCode, asm.Word).WithSymbol("code"),
		asm.JNE.Imm(asm.R1, 0, "ended"),
		asm.LoadMem(asm.R1, asm.R6, at.exitCode, asm.Word),
		asm.StoreMem(asm.RFP, slotRecord+fieldCode, asm.R1, asm.Word).WithSymbol("ended"),
		asm.JEq.Reg(asm.R9, asm.R8, "tell"), // a root: whatever ended it
		asm.And.Imm(asm.R1, 0x7f),
		asm.JGT.Imm(asm.R1, 31, "out"),
		asm.Mov.Imm(asm.R2, 1),
		asm.LSh.Reg(asm.R2, asm.R1),
		asm.LoadImm(asm.R3, int64(crashes), asm.DWord),
		asm.And.Reg(asm.R2, asm.R3),
		asm.JEq.Imm(asm.R2, 0, "out"),
	)
	return append(code, b.tell(at)...)
}

// tell fills in what is known of the task in R6 and hands the record over.
func (b *BPF) tell(at fields) asm.Instructions {
	code := asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, at.parent, asm.DWord).WithSymbol("tell"),
		asm.LoadMem(asm.R1, asm.R1, at.tgid, asm.Word),
		asm.StoreMem(asm.RFP, slotRecord+fieldParent, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, at.leader, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, at.started, asm.DWord),
		asm.StoreMem(asm.RFP, slotRecord+fieldStart, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R6, at.ptrace, asm.Word),
		asm.StoreMem(asm.RFP, slotRecord+fieldTrace, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, at.nsproxy, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "helpers"),
		asm.LoadMem(asm.R1, asm.R1, at.mountNamespace, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, at.namespaceNumber, asm.Word),
		asm.StoreMem(asm.RFP, slotRecord+fieldNamespace, asm.R1, asm.Word),
		asm.Mov.Reg(asm.R1, asm.RFP).WithSymbol("helpers"), asm.Add.Imm(asm.R1, slotRecord+fieldCommand),
		asm.Mov.Imm(asm.R2, 16),
		asm.FnGetCurrentComm.Call(),
		asm.FnGetCurrentCgroupId.Call(),
		asm.StoreMem(asm.RFP, slotRecord+fieldCgroup, asm.R0, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.RFP, slotRecord+fieldAt, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, b.ring.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotRecord),
		asm.Mov.Imm(asm.R3, recordSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	}
	// The ring was full: count it, loudly told by Lost.
	return append(code,
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, slotKey, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, b.lost.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"), asm.Return(),
	)
}
