package change

import "testing"

// FuzzJournal: whatever a journal holds, only changes of known tasks and
// states come out of it.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"schema":"sealant.change/1","id":"1","journey":"install","tasks":[{"kind":"put","args":{"file":"a"},"state":"doing","final":true}]}`))
	f.Add([]byte(`{"schema":"sealant.change/1","tasks":[{"kind":"put","state":"undone"},{"kind":"commit","state":"todo"}],"undoing":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		steps := world("/nonexistent", nothing)
		c, err := decode(data, steps)
		if err != nil {
			return
		}
		if len(c.Tasks) == 0 || c.Vars == nil {
			t.Errorf("%+v", c)
		}
		for _, task := range c.Tasks {
			if _, ok := steps[task.Kind]; !ok {
				t.Errorf("unknown task %q", task.Kind)
			}
		}
	})
}
