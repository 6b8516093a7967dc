package compare

import (
	"io/fs"
	"testing"
	"testing/fstest"
)

func TestTrees(t *testing.T) {
	old := fstest.MapFS{
		"same":      {Data: []byte("one")},
		"changed":   {Data: []byte("one")},
		"gone":      {Data: []byte("one")},
		"mode":      {Data: []byte("one"), Mode: 0o644},
		"dir/inner": {Data: []byte("one")},
		"lib.so.1":  {Data: []byte("one")},
		"a-1.9.jar": {Data: []byte("one")},
		"b1":        {Data: []byte("one")}, // of which two come
	}
	data := fstest.MapFS{
		"same":       {Data: []byte("one")},
		"changed":    {Data: []byte("three")},
		"mode":       {Data: []byte("one"), Mode: 0o755 | fs.ModeSetuid},
		"dir/inner":  {Data: []byte("one")},
		"come":       {Data: []byte("two")},
		"lib.so.2":   {Data: []byte("one")},
		"a-1.10.jar": {Data: []byte("two")},
		"b2":         {Data: []byte("one")},
		"b3":         {Data: []byte("one")},
	}
	files, err := Trees(old, data, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Change{"changed": Changed, "come": Added, "gone": Removed, "mode": Mode, "lib.so.2": Renamed, "a-1.10.jar": Changed, "b1": Removed, "b2": Added, "b3": Added}
	if len(files) != len(want) {
		t.Fatalf("%d files: %+v", len(files), files)
	}
	for _, f := range files {
		if want[f.Path] != f.Change {
			t.Errorf("%s: %s", f.Path, f.Change)
		}
	}
	by := map[string]File{}
	for _, f := range files {
		by[f.Path] = f
	}
	if mode := by["mode"].NewMode; mode != "urwxr-xr-x" {
		t.Errorf("mode is %q", mode)
	}
	if a, b := by["lib.so.2"].OldPath, by["a-1.10.jar"].OldPath; a != "lib.so.1" || b != "a-1.9.jar" {
		t.Errorf("old paths are %q and %q", a, b)
	}
}
