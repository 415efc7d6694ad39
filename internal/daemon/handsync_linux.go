package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// A Hand is what a command has set on a backend, as another node is told of it.
// It is plain data, and lasts for as long as the file says of the backend what it
// said when the command was given: each node asks its own file.
type Hand struct {
	Service string `json:"-"`
	Backend string `json:"-"`

	What       string    `json:"what"`             // admin.DoDrain, admin.DoWeight or admin.DoRemove
	Weight     int       `json:"weight,omitempty"` // in force, but for admin.DoRemove
	FileWeight int       `json:"file_weight"`      // what the file said
	File       string    `json:"file"`             // the rest of what it said, as a digest
	Since      time.Time `json:"since"`
	By         string    `json:"by,omitempty"`
}

// digest is of everything that the file says of a backend but its weight.
func (f fileBackend) digest() string {
	at := f.host
	if at == "" {
		at = f.Address.String()
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %t %d", f.Name, at, f.Backup, f.MaxConnections))
	return hex.EncodeToString(sum[:6])
}

func (h hand) told(service, backend string) Hand {
	return Hand{
		Service: service, Backend: backend, What: h.what, Weight: h.weight, FileWeight: h.file.Weight, File: h.file.digest(),
		Since: h.since, By: h.by,
	}
}

// holds reports whether the file still says what it said when the command was
// given.
func (h Hand) holds(now fileBackend) bool {
	return h.FileWeight == now.Weight && (h.What != admin.DoRemove || h.File == now.digest())
}

// TakeHand puts into force what a command has set at another node, unless the
// file of this one has changed that since, or does not have the backend. It
// reports whether it changed anything.
func (d *Daemon) TakeHand(h Hand) (changed bool, err error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	s, file, err := d.handedTo(h.Service, h.Backend)
	if s == nil || err != nil || !h.holds(file) {
		return false, err
	}
	c := admin.BackendCommand{Do: h.What, Weight: h.Weight}
	switch h.What {
	case admin.DoDrain, admin.DoWeight, admin.DoRemove:
	default:
		return false, fmt.Errorf("a command for backend %s of service %s at the other node is %q, which this version does not know", h.Backend, h.Service, h.What)
	}
	set := s.hands
	if set[h.Backend].what == admin.DoRemove && h.What != admin.DoRemove { // it was brought back there
		if set, _, err = set.apply(order{admin.BackendCommand{Do: admin.DoResume}, s.name, h.By, h.Since}, file); err != nil {
			return false, err
		}
	}
	return d.takeOrder(s, file, set, order{c, s.name, h.By, h.Since})
}

// DropHand has the file decide again about a backend, as a command at another node
// wants it. It reports whether it changed anything.
func (d *Daemon) DropHand(service, backend, by string) (changed bool, err error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	s, file, err := d.handedTo(service, backend)
	if s == nil || err != nil {
		return false, err
	}
	return d.takeOrder(s, file, s.hands, order{admin.BackendCommand{Do: admin.DoResume}, s.name, by, time.Now()})
}

// handedTo finds a backend of the file; nil where there is none. The caller holds
// changing.
func (d *Daemon) handedTo(service, backend string) (*service, fileBackend, error) {
	if d.stopping {
		return nil, fileBackend{}, StoppingError()
	}
	for _, s := range d.services {
		if s.name != service {
			continue
		}
		for _, b := range s.file.backends() {
			if b.Name == backend {
				return s, b, nil
			}
		}
	}
	return nil, fileBackend{}, nil
}

// takeOrder obeys what was ordered at another node. The caller holds changing.
func (d *Daemon) takeOrder(s *service, file fileBackend, from hands, o order) (bool, error) {
	next, changed, err := from.apply(o, file)
	if err != nil || !changed {
		return false, err
	}
	spec, removed := next.inForce(file.Backend)
	if err := d.obey(s, next, spec, removed); err != nil {
		return false, err
	}
	text := fmt.Sprintf("backend %s of service %s %s, as at the other node", file.Name, s.name, outcome(spec, removed, file.Weight, next))
	d.changedByHand(s, spec, removed, text, o.by)
	return true, nil
}

// Hands lists what commands have set here.
func (d *Daemon) Hands() []Hand {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []Hand
	for _, s := range d.services {
		for name, h := range s.hands {
			list = append(list, h.told(s.name, name))
		}
	}
	return list
}
