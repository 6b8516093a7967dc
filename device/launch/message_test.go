package launch

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// odd is what a program may be given as well as anything else.
const odd = "\xff \xed\xa0\x80\n\"'\\\u2028"

var (
	someRequest = request{App: "reader", Dir: "/" + odd, Terminal: -1, Detached: true, Args: []string{"a", "", odd}, Env: []string{"X=" + odd}}
	someOrder   = order{
		Program: Program{App: "reader", Path: "/bin/" + odd, Args: []string{"", odd}, Env: []string{"X="}, Dir: "/"},
		Session: true, Terminal: 2,
		Caller: &caller{PID: 5, User: linux.User{UID: 1<<32 - 1, GID: 7, Groups: []int{0, 1<<32 - 1}}, Bounding: 1<<63 | 1, Umask: 0o22, Label: "a:b:c:d"},
	}
	someAnswers = []answer{
		{Started: 1},
		{Ended: &Status{Code: 255}},
		{Ended: &Status{Signal: 64}},
		{Failed: &failure{Error: "cannot launch: \xff", Reason: "policy", Hint: ""}},
	}
)

func TestMessagesReadBack(t *testing.T) {
	text, err := someRequest.message()
	must(t, err)
	if got, err := readRequest(text); err != nil || !reflect.DeepEqual(got, someRequest) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, o := range []order{someOrder, {Program: Program{Args: []string{}, Env: []string{}}, Terminal: -1}} {
		text, err := o.message()
		must(t, err)
		if got, err := readOrder(text); err != nil || !reflect.DeepEqual(got, o) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for _, a := range someAnswers {
		text, err := a.message()
		must(t, err)
		if got, err := readAnswer(text); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// A zero byte would be the end of a word, and what follows it another one.
func TestZeroBytesAreNoWords(t *testing.T) {
	q, o := someRequest, someOrder
	q.Dir, o.Program.Path = "/\x00-1", "/bin/true\x00"
	for _, message := range []func() ([]byte, error){q.message, o.message, answer{Failed: &failure{Hint: "\x00"}}.message} {
		if text, err := message(); fault.KindOf(err) != fault.Usage {
			t.Errorf("%q, %v", text, err)
		}
	}
}

func TestMessagesThatMakeNoSense(t *testing.T) {
	text, err := someOrder.message()
	must(t, err)
	good := strings.ReplaceAll(string(text), "\x00", "|")
	for _, change := range [][2]string{
		{"order/1", "order/2"},
		{"a:b:c:d|", "a:b:c:d"},
		{"a:b:c:d|", "a:b:c:d|x|"},
		{"|5|", "|05|"},
		{"|5|", "|0|"},
		{"|4294967295|7|", "|4294967296|7|"},
		{"|4294967295|7|", "|-1|7|"},
		{"|8000000000000001|", "|8000000000000001 |"},
		{"|18|a", "|512|a"},
		{"|1|2|1|", "|2|2|1|"},
		{"|1|2|1|", "|1|3|1|"},
		{"|2||", "|99999||"},
		{"|2||", "|30000||"},
		{"|2||", "|-1||"},
	} {
		if !strings.Contains(good, change[0]) {
			t.Fatalf("%q is not in %q", change[0], good)
		}
		bad := strings.ReplaceAll(strings.Replace(good, change[0], change[1], 1), "|", "\x00")
		if o, err := readOrder([]byte(bad)); err == nil {
			t.Errorf("%q for %q: %+v", change[1], change[0], o)
		}
	}
}

// Whatever is read is written as it was: nothing can be said in two ways.
func FuzzMessages(f *testing.F) {
	for _, message := range []func() ([]byte, error){someRequest.message, someOrder.message, someAnswers[0].message, someAnswers[1].message, someAnswers[3].message} {
		text, err := message()
		must(f, err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := slices.Clone(text)
		var again []byte
		var rerr error
		if q, err := readRequest(text); err == nil {
			again, rerr = q.message()
		} else if o, err := readOrder(text); err == nil {
			again, rerr = o.message()
		} else if a, err := readAnswer(text); err == nil {
			again, rerr = a.message()
		} else {
			return
		}
		if rerr != nil || !bytes.Equal(again, before) {
			t.Errorf("%q is written as %q, %v", before, again, rerr)
		}
	})
}
