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
	}
	data := fstest.MapFS{
		"same":      {Data: []byte("one")},
		"changed":   {Data: []byte("three")},
		"mode":      {Data: []byte("one"), Mode: 0o755 | fs.ModeSetuid},
		"dir/inner": {Data: []byte("one")},
		"come":      {Data: []byte("two")},
	}
	files, err := Trees(old, data, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Change{"changed": Changed, "come": Added, "gone": Removed, "mode": Mode}
	if len(files) != len(want) {
		t.Fatalf("%d files: %+v", len(files), files)
	}
	for _, f := range files {
		if want[f.Path] != f.Change {
			t.Errorf("%s: %s", f.Path, f.Change)
		}
	}
	if files[3].NewMode != "urwxr-xr-x" {
		t.Errorf("mode is %q", files[3].NewMode)
	}
}
