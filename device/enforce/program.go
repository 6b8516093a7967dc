package enforce

import (
	"fmt"

	"github.com/cilium/ebpf/asm"

	"github.com/sealant-os/sealant/internal/layout"
)

// fields is where this kernel keeps what the programs read, in bytes.
type fields struct {
	binary               int16 // in struct linux_binprm: the file
	mapped               int16 // in struct vm_area_struct: the file
	inode, entry         int16 // in struct file: its inode and its directory entry
	number, super        int16 // in struct inode
	root, device         int16 // in struct super_block
	behind, parent, name int16 // in struct dentry: its inode, the folder's entry, the name's bytes
	leader               int16 // in struct task_struct
}

func fieldsOf(k *layout.Kernel) (fields, error) {
	at := fields{
		binary: k.Field("linux_binprm", "file"),
		mapped: k.Field("vm_area_struct", "vm_file"),
		inode:  k.Field("file", "f_inode"),
		entry:  k.Field("file", "f_path", "dentry"),
		number: k.Field("inode", "i_ino"),
		super:  k.Field("inode", "i_sb"),
		root:   k.Field("super_block", "s_root"),
		device: k.Field("super_block", "s_dev"),
		behind: k.Field("dentry", "d_inode"),
		parent: k.Field("dentry", "d_parent"),
		name:   k.Field("dentry", "d_name", "name"),
		leader: k.Field("task_struct", "group_leader"),
	}
	return at, k.Err()
}

// hook is a place in the kernel where a program decides.
type hook struct {
	name string // the kernel's, without "bpf_lsm_"
	how  How
}

var hooks = []hook{
	{"bprm_check_security", Exec},
	{"mmap_file", Map},
	{"file_mprotect", Protect},
	{"task_alloc", 0},
}

// Slots of the programs' stack, below the frame pointer.
const (
	slotEvent = -eventSize     // what is told, as event lies
	slotKey   = slotEvent - 8  // a key of 8 bytes
	slotTable = slotKey - 8    // the table of the cryptex, 0 for none
	slotTold  = slotTable - 16 // what was told, as a key
	slotSince = slotTold - 8   // when it was told, as a value
)

const (
	protExec = 4
	create   = 1 // BPF_LOCAL_STORAGE_GET_F_CREATE
	eacces   = 13
	eagain   = 11

	// maxDepth bounds how many folders a file may lie below /usr to count as the
	// base's. Deeper ones don't.
	maxDepth = 40

	// quietFor is how long one file's refusals are told no more than once, in
	// nanoseconds. They are counted all the same.
	quietFor = 10e9
)

// assembly is one program being put together.
type assembly struct {
	maps
	at    fields
	names bool // the kernel lets programs read names
	code  asm.Instructions
}

func (a *assembly) add(code ...asm.Instruction) { a.code = append(a.code, code...) }

// label gives the next instruction a name.
func (a *assembly) label(name string, next asm.Instruction) { a.add(next.WithSymbol(name)) }

// program puts the program of a hook together.
func (m maps) program(h hook, at fields, names bool) asm.Instructions {
	a := &assembly{maps: m, at: at, names: names}
	if h.how == 0 {
		a.inherit()
	} else {
		a.begin(h.how)
		a.cryptex()
		a.strict()
		a.refuse(h.how)
	}
	a.label("allow", asm.Mov.Imm(asm.R0, 0))
	a.add(asm.Return())
	return a.code
}

// begin leaves the mode in R9, the file in R6, its inode in R7, and allows what
// executes no file.
func (a *assembly) begin(how How) {
	a.add(asm.Mov.Reg(asm.R6, asm.R1))
	if how == Exec {
		a.keepMark()
	}
	a.add(
		asm.LoadMapValue(asm.R1, a.config.FD(), 0),
		asm.LoadMem(asm.R9, asm.R1, 0, asm.Word),
		asm.And.Imm(asm.R9, 3),
		asm.JEq.Imm(asm.R9, int32(Off), "allow"),
	)
	switch how {
	case Exec:
		a.add(
			asm.LoadMem(asm.R6, asm.R6, 0, asm.DWord),
			asm.LoadMem(asm.R6, asm.R6, a.at.binary, asm.DWord),
		)
	case Map:
		a.add(
			asm.LoadMem(asm.R1, asm.R6, 16, asm.DWord),
			asm.And.Imm(asm.R1, protExec),
			asm.JEq.Imm(asm.R1, 0, "allow"),
			// Memory without a file. Kernels before 6.18 say that the argument can't
			// be null, and take away a comparison of it: ask for it as a number.
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, 0),
			asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, slotKey),
			asm.FnGetFuncArg.Call(),
			asm.JNE.Imm(asm.R0, 0, "allow"),
			asm.LoadMem(asm.R1, asm.RFP, slotKey, asm.DWord),
			asm.JEq.Imm(asm.R1, 0, "allow"),
			asm.LoadMem(asm.R6, asm.R6, 0, asm.DWord),
		)
	case Protect:
		a.add(
			asm.LoadMem(asm.R1, asm.R6, 16, asm.DWord),
			asm.And.Imm(asm.R1, protExec),
			asm.JEq.Imm(asm.R1, 0, "allow"),
			asm.LoadMem(asm.R6, asm.R6, 0, asm.DWord),
			asm.LoadMem(asm.R6, asm.R6, a.at.mapped, asm.DWord),
		)
	}
	a.add(
		asm.JEq.Imm(asm.R6, 0, "allow"),
		asm.LoadMem(asm.R7, asm.R6, a.at.inode, asm.DWord),
		asm.JEq.Imm(asm.R7, 0, "allow"),
	)
}

// cryptex allows what a cryptex lists and refuses what it doesn't. The root
// folder's inode of a guarded file system carries the number of its table.
func (a *assembly) cryptex() {
	a.add(
		asm.Mov.Imm(asm.R0, 0),
		asm.StoreMem(asm.RFP, slotTable, asm.R0, asm.DWord),
		asm.LoadMem(asm.R8, asm.R7, a.at.super, asm.DWord),
		asm.JEq.Imm(asm.R8, 0, "allow"),
		asm.LoadMem(asm.R8, asm.R8, a.at.root, asm.DWord),
		asm.JEq.Imm(asm.R8, 0, "foreign"),
		asm.LoadMem(asm.R8, asm.R8, a.at.behind, asm.DWord),
		asm.JEq.Imm(asm.R8, 0, "foreign"),
		asm.LoadMapPtr(asm.R1, a.cryptexes.FD()),
		asm.Mov.Reg(asm.R2, asm.R8),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnInodeStorageGet.Call(),
		asm.JEq.Imm(asm.R0, 0, "foreign"),
		asm.Mov.Imm(asm.R8, int32(Unlisted)),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.StoreMem(asm.RFP, slotTable, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, a.tables.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotTable),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "refuse"),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.LoadMem(asm.R2, asm.R7, a.at.number, asm.DWord),
		asm.StoreMem(asm.RFP, slotKey, asm.R2, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotKey),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "allow"),
		asm.Ja.Label("refuse"),
	)
}

// marked jumps to where when the task in a register, or its process, is a strict
// app's.
func (a *assembly) marked(task asm.Register, where string) {
	a.add(
		asm.LoadMem(asm.R2, task, a.at.leader, asm.DWord),
		asm.LoadMapPtr(asm.R1, a.apps.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnTaskStorageGet.Call(),
		asm.JNE.Imm(asm.R0, 0, where),
		asm.LoadMapPtr(asm.R1, a.apps.FD()),
		asm.Mov.Reg(asm.R2, task),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnTaskStorageGet.Call(),
		asm.JNE.Imm(asm.R0, 0, where),
	)
}

// keepMark hands the mark of a process's first thread to the one that executes: of
// all its threads only that one goes on. What executes in a strict service's control
// group is marked too, whatever it executes: from here on it stays a strict app's,
// whatever group it is moved to. It does so in every mode.
func (a *assembly) keepMark() {
	a.add(
		asm.FnGetCurrentTaskBtf.Call(),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.LoadMem(asm.R2, asm.R7, a.at.leader, asm.DWord),
		asm.LoadMapPtr(asm.R1, a.apps.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnTaskStorageGet.Call(),
		asm.JNE.Imm(asm.R0, 0, "keep"),
	)
	a.inGroup("keep")
	a.add(asm.Ja.Label("mode"))
	a.label("keep", asm.Mov.Imm(asm.R0, 0))
	a.mark(asm.R7)
	a.add(
		asm.JNE.Imm(asm.R0, 0, "mode"),
		asm.Mov.Imm(asm.R0, -eagain),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("mode"),
	)
}

// inGroup jumps to where when the process is in a strict service's control group.
func (a *assembly) inGroup(where string) {
	a.add(
		asm.FnGetCurrentCgroupId.Call(),
		asm.StoreMem(asm.RFP, slotKey, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, a.groups.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotKey),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, where),
	)
}

// mark makes the task in a register a strict app's; R0 is 0 if that failed.
func (a *assembly) mark(task asm.Register) {
	a.add(
		asm.LoadMapPtr(asm.R1, a.apps.FD()),
		asm.Mov.Reg(asm.R2, task),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, create),
		asm.FnTaskStorageGet.Call(),
	)
}

// strict allows what lies in no cryptex, unless a strict app executes it and it
// does not lie below a folder of the base.
func (a *assembly) strict() {
	a.label("foreign", asm.FnGetCurrentTaskBtf.Call())
	a.add(asm.Mov.Reg(asm.R8, asm.R0))
	a.marked(asm.R8, "strict")
	a.inGroup("strict") // it was there already when it was put into the group
	a.add(asm.Ja.Label("allow"))
	a.label("strict", asm.LoadMem(asm.R8, asm.R6, a.at.entry, asm.DWord))
	a.add(asm.JEq.Imm(asm.R8, 0, "outside"))
	for i := range maxDepth {
		next := fmt.Sprintf("folder%d", i)
		a.add(
			asm.LoadMem(asm.R2, asm.R8, a.at.behind, asm.DWord),
			asm.JEq.Imm(asm.R2, 0, next),
			asm.LoadMapPtr(asm.R1, a.base.FD()),
			asm.Mov.Imm(asm.R3, 0),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnInodeStorageGet.Call(),
			asm.JNE.Imm(asm.R0, 0, "allow"),
		)
		a.label(next, asm.LoadMem(asm.R1, asm.R8, a.at.parent, asm.DWord))
		a.add(
			asm.JEq.Imm(asm.R1, 0, "outside"),
			asm.JEq.Reg(asm.R1, asm.R8, "outside"), // the root of its file system
			asm.Mov.Reg(asm.R8, asm.R1),
		)
	}
	a.label("outside", asm.Mov.Imm(asm.R8, int32(Outside)))
}

// refuse counts, tells and refuses, or in Audit allows. The reason is in R8.
func (a *assembly) refuse(how How) {
	a.label("refuse", asm.Mov.Imm(asm.R0, 0))
	for slot := int16(slotEvent); slot < 0; slot += 8 {
		a.add(asm.StoreMem(asm.RFP, slot, asm.R0, asm.DWord))
	}
	a.add(
		asm.LoadMapValue(asm.R1, a.counts.FD(), 0),
		asm.Mov.Reg(asm.R2, asm.R9),
		asm.LSh.Imm(asm.R2, 3),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),

		asm.LoadMem(asm.R1, asm.RFP, slotTable, asm.DWord),
		asm.StoreMem(asm.RFP, slotEvent+eventTable, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, a.at.number, asm.DWord),
		asm.StoreMem(asm.RFP, slotEvent+eventInode, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, slotTold, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, a.at.super, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "verdict"),
		asm.LoadMem(asm.R1, asm.R1, a.at.device, asm.Word),
		asm.StoreMem(asm.RFP, slotEvent+eventDevice, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, slotTold+8, asm.R1, asm.Word),
		// how, reason and mode, one byte each
		asm.Mov.Reg(asm.R1, asm.R9),
		asm.LSh.Imm(asm.R1, 8),
		asm.Or.Reg(asm.R1, asm.R8),
		asm.LSh.Imm(asm.R1, 8),
		asm.Or.Imm(asm.R1, int32(how)),
		asm.StoreMem(asm.RFP, slotEvent+eventWhat, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, slotTold+12, asm.R1, asm.Word),

		asm.FnKtimeGetNs.Call(),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.StoreMem(asm.RFP, slotEvent+eventAt, asm.R8, asm.DWord),
		asm.LoadMapPtr(asm.R1, a.told.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotTold),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "tell"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.R8),
		asm.Sub.Reg(asm.R2, asm.R1),
		asm.LoadImm(asm.R3, quietFor, asm.DWord),
		asm.JLT.Reg(asm.R2, asm.R3, "verdict"),
	)
	a.label("tell", asm.StoreMem(asm.RFP, slotSince, asm.R8, asm.DWord))
	a.add(
		asm.LoadMapPtr(asm.R1, a.told.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotTold),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, slotSince),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.FnGetCurrentCgroupId.Call(),
		asm.StoreMem(asm.RFP, slotEvent+eventCgroup, asm.R0, asm.DWord),
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.StoreMem(asm.RFP, slotEvent+eventPID, asm.R0, asm.Word),
		asm.FnGetCurrentUidGid.Call(),
		asm.StoreMem(asm.RFP, slotEvent+eventUID, asm.R0, asm.Word),
		asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, slotEvent+eventCommand),
		asm.Mov.Imm(asm.R2, commandSize),
		asm.FnGetCurrentComm.Call(),
	)
	if a.names {
		a.add(
			asm.LoadMem(asm.R3, asm.R6, a.at.entry, asm.DWord),
			asm.JEq.Imm(asm.R3, 0, "named"),
			asm.LoadMem(asm.R3, asm.R3, a.at.name, asm.DWord),
			asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, slotEvent+eventName),
			asm.Mov.Imm(asm.R2, nameSize),
			asm.FnProbeReadKernelStr.Call(),
		)
	}
	a.label("named", asm.LoadMapPtr(asm.R1, a.events.FD()))
	a.add(
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, slotEvent),
		asm.Mov.Imm(asm.R3, eventSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "verdict"),
		asm.LoadMapValue(asm.R1, a.counts.FD(), 0), // the ring is full
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
	)
	a.label("verdict", asm.Mov.Imm(asm.R0, -eacces))
	a.add(
		asm.JNE.Imm(asm.R9, int32(Enforce), "allow"),
		asm.Return(),
	)
}

// inherit makes a process that a strict app's starts one of its own. Its argument
// is the new task. Where that can't be noted down there is no new process.
func (a *assembly) inherit() {
	a.add(
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.FnGetCurrentTaskBtf.Call(),
		asm.Mov.Reg(asm.R7, asm.R0),
	)
	a.marked(asm.R7, "mark")
	a.add(
		asm.Ja.Label("allow"),
		asm.LoadMapPtr(asm.R1, a.apps.FD()).WithSymbol("mark"),
		asm.Mov.Reg(asm.R2, asm.R6),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, create),
		asm.FnTaskStorageGet.Call(),
		asm.JNE.Imm(asm.R0, 0, "allow"),
		asm.Mov.Imm(asm.R0, -eagain),
		asm.Return(),
	)
}
