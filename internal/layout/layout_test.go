package layout

import (
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestFields compares with what is the same in every kernel: the order of fields
// that nothing is put between, and those that come first.
func TestFields(t *testing.T) {
	k, err := Running()
	if Missing(err) {
		t.Skip("this kernel doesn't describe its types")
	}
	if err != nil {
		t.Fatal(err)
	}
	if pid, tgid := k.Field("task_struct", "pid"), k.Field("task_struct", "tgid"); k.Err() != nil || pid <= 0 || tgid != pid+4 {
		t.Errorf("pid at %d, tgid at %d: %v", pid, tgid, k.Err())
	}
	if at := k.Field("list_head", "next"); at != 0 || k.Err() != nil {
		t.Errorf("list_head.next at %d: %v", at, k.Err())
	}
	// A field of a nameless union inside a named structure.
	if at, base := k.Field("dentry", "d_name", "name"), k.Field("dentry", "d_name"); at <= base || at > base+8 || k.Err() != nil {
		t.Errorf("dentry.d_name.name at %d, d_name at %d: %v", at, base, k.Err())
	}
	if !k.Function("schedule") || k.Function("no_such_function_of_the_kernel") {
		t.Error("functions")
	}
}

func TestMissing(t *testing.T) {
	k, err := Running()
	if Missing(err) {
		t.Skip("this kernel doesn't describe its types")
	}
	if err != nil {
		t.Fatal(err)
	}
	if at := k.Field("task_struct", "no_such_field"); at != 0 || !Missing(k.Err()) {
		t.Errorf("at %d: %v", at, k.Err())
	}
	first := k.Err()
	if at := k.Field("no_such_struct", "x"); at != 0 || k.Err() != first {
		t.Errorf("the second failure took the place of the first: %v", k.Err())
	}
	k = &Kernel{spec: k.spec}
	if k.Field("no_such_struct", "x"); !Missing(k.Err()) || Missing(btf.ErrNoExtendedInfo) {
		t.Error(k.Err())
	}
}
