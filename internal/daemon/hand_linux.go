package daemon

import (
	"fmt"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/balance"
	"github.com/holdfast-net/holdfast/relay"
)

// This file is what commands do to a backend, and how long that lasts: the
// rules alone, without a relay and without a clock.

// A fileBackend is a backend as the file says it. Two are equal when the file
// says the same: what a host name stands for today is not part of it.
type fileBackend struct {
	relay.Backend
	host string // HOST:PORT that Address was looked up from; "" where the file has the address
}

func (f fileBackend) equal(other fileBackend) bool {
	if f.host != "" && f.host == other.host {
		f.Address = other.Address
	}
	return f == other
}

// A hand is what a command has set in place of what the file says.
type hand struct {
	what   string      // admin.DoDrain, admin.DoWeight or admin.DoRemove
	weight int         // in force, but for admin.DoRemove
	file   fileBackend // what the file said then
	since  time.Time
	by     string
}

// lasts reports whether the file still says what it said when the command was
// given: of the weight, or, for a removed backend, of anything.
func (h hand) lasts(now fileBackend) bool {
	if h.what == admin.DoRemove {
		return h.file.equal(now)
	}
	return h.file.Weight == now.Weight
}

// hands are what commands have set on the backends of one service, by name. A
// hands value is not changed once it is in use.
type hands map[string]hand

// after is what is left of it once the file says this.
func (h hands) after(file []fileBackend) hands {
	left := make(hands)
	for _, b := range file {
		if set, ok := h[b.Name]; ok && set.lasts(b) {
			left[b.Name] = set
		}
	}
	return left
}

// inForce is the backend as it is to run; removed says that it is not to.
func (h hands) inForce(b relay.Backend) (_ relay.Backend, removed bool) {
	set, ok := h[b.Name]
	switch {
	case !ok:
	case set.what == admin.DoRemove:
		return b, true
	default:
		b.Weight = set.weight
	}
	return b, false
}

// An order is a command about one backend, with who gave it, and when.
type order struct {
	admin.BackendCommand
	service string
	by      string
	at      time.Time
}

// apply is what is set once the order is obeyed; the error is for whoever gave
// it. changed is false when it asks for what is so already. admin.DoReset sets
// nothing, and is not for here.
func (h hands) apply(o order, file fileBackend) (_ hands, changed bool, err error) {
	before, removed := h.inForce(file.Backend)
	if removed && o.Do != admin.DoResume && o.Do != admin.DoRemove {
		return nil, false, &admin.Error{
			Code:   admin.CodeRefused,
			Text:   fmt.Sprintf("backend %s of service %s was removed by hand", file.Name, o.service),
			Remedy: fmt.Sprintf("bring it back first: holdfast backend resume %s %s", o.service, file.Name),
		}
	}
	next := make(hands, len(h)+1)
	for name, set := range h {
		next[name] = set
	}
	set := hand{what: o.Do, file: file, since: o.at, by: o.by}
	switch o.Do {
	case admin.DoDrain:
	case admin.DoWeight:
		if o.Weight < 0 || o.Weight > balance.MaxWeight {
			return nil, false, &admin.Error{
				Code:   admin.CodeInvalid,
				Text:   fmt.Sprintf("weight %d for backend %s of service %s is out of bounds", o.Weight, file.Name, o.service),
				Remedy: fmt.Sprintf("give 0 (drain) to %d", balance.MaxWeight),
			}
		}
		if set.weight = o.Weight; set.weight == 0 {
			set.what = admin.DoDrain
		}
	case admin.DoRemove:
	case admin.DoResume:
		delete(next, file.Name)
		_, was := h[file.Name]
		return next, was, nil
	default:
		return nil, false, &admin.Error{
			Code:   admin.CodeInvalid,
			Text:   fmt.Sprintf("there is no command %q for a backend", o.Do),
			Remedy: "use drain, resume, weight, reset or remove",
		}
	}
	switch {
	case o.Do == admin.DoRemove && removed || o.Do != admin.DoRemove && set.weight == before.Weight:
		return h, false, nil
	case o.Do != admin.DoRemove && set.weight == file.Weight: // needs no hand to say it
		delete(next, file.Name)
	default:
		next[file.Name] = set
	}
	return next, true, nil
}

// byHand is how a listing shows it; nil where the file alone decides.
func (h hands) byHand(backend string) *admin.ByHand {
	set, ok := h[backend]
	if !ok {
		return nil
	}
	return &admin.ByHand{What: set.what, FileWeight: set.file.Weight, Since: set.since, By: set.by}
}
