package launch

import (
	"fmt"
	"math"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// The first word of a request and of an order.
const (
	requestSchema = "sealant.launch-request/2"
	orderSchema   = "sealant.launch-order/1" // between programs of one package
)

// request is what a caller asks for; its standard streams come with it.
type request struct {
	App      string
	Dir      string
	Terminal int  // the standard stream to make the controlling terminal, -1 if none
	Detached bool // the program goes on when the caller ends
	Args     []string
	Env      []string
}

func (r request) message() ([]byte, error) {
	var w words
	w.add(requestSchema, r.App, r.Dir)
	w.number(r.Terminal)
	w.flag(r.Detached)
	w.list(r.Args)
	w.list(r.Env)
	return w.b, w.err
}

func readRequest(message []byte) (request, error) {
	r := reading{rest: message}
	if schema := r.word(); schema != requestSchema {
		return request{}, fault.New(fault.Usage, "cannot launch: the request is not a %s message", requestSchema)
	}
	q := request{App: r.word(), Dir: r.word(), Terminal: r.number(-1, 2), Detached: r.flag(), Args: r.list(maxArgs), Env: r.list(maxArgs)}
	if err := r.end(); err != nil {
		return request{}, fault.New(fault.Usage, "cannot launch: %w", err)
	}
	return q, nil
}

func (o order) message() ([]byte, error) {
	var w words
	p := o.Program
	w.add(orderSchema, p.App, p.Path, p.Dir)
	w.list(p.Args)
	w.list(p.Env)
	w.flag(o.Session)
	w.number(o.Terminal)
	w.flag(o.Caller != nil)
	if c := o.Caller; c != nil {
		w.number(c.PID)
		w.number(c.User.UID)
		w.number(c.User.GID)
		w.number(len(c.User.Groups))
		for _, g := range c.User.Groups {
			w.number(g)
		}
		w.mask(c.Bounding)
		w.number(c.Umask)
		w.add(c.Label)
	}
	return w.b, w.err
}

func readOrder(message []byte) (order, error) {
	r := reading{rest: message}
	if schema := r.word(); schema != orderSchema {
		r.fail("its kind is %q", schema)
	}
	o := order{
		Program: Program{App: r.word(), Path: r.word(), Dir: r.word(), Args: r.list(maxArgs), Env: r.list(maxArgs)},
		Session: r.flag(), Terminal: r.number(-1, 2),
	}
	if r.flag() {
		const most, maxGroups = math.MaxUint32, 65536 // of ids; NGROUPS_MAX
		c := &caller{PID: r.number(1, math.MaxInt32), User: linux.User{UID: r.number(0, most), GID: r.number(0, most)}}
		for n := r.number(0, maxGroups); n > 0; n-- {
			c.User.Groups = append(c.User.Groups, r.number(0, most))
		}
		c.Bounding = r.mask()
		c.Umask, c.Label = r.number(-1, 0o777), r.word()
		o.Caller = c
	}
	if err := r.end(); err != nil {
		return order{}, fmt.Errorf("cannot read the order: %w", err)
	}
	return o, nil
}

// answer is what the agent says: once when it has started the program, with a
// handle on it, and once when that has ended; or a failure, which a child says too.
type answer struct {
	Started int // pid
	Ended   *Status
	Failed  *failure
}

func (a answer) message() ([]byte, error) {
	var w words
	switch {
	case a.Failed != nil:
		w.add("failed", a.Failed.Error, a.Failed.Reason, a.Failed.Hint)
	case a.Ended != nil:
		w.add("ended")
		w.number(a.Ended.Code)
		w.number(a.Ended.Signal)
	default:
		w.add("started")
		w.number(a.Started)
	}
	return w.b, w.err
}

func readAnswer(message []byte) (answer, error) {
	r := reading{rest: message}
	var a answer
	switch kind := r.word(); kind {
	case "failed":
		a.Failed = &failure{Error: r.word(), Reason: r.word(), Hint: r.word()}
	case "ended":
		a.Ended = &Status{Code: r.number(0, 255), Signal: r.number(0, 127)}
	case "started":
		a.Started = r.number(1, math.MaxInt32)
	default:
		r.fail("its kind is %q", kind)
	}
	if err := r.end(); err != nil {
		return answer{}, fmt.Errorf("cannot read an answer about a launch: %w", err)
	}
	return a, nil
}
