//go:build linux

package operate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// A plan is what the scene reload does to a node, step by step, as its seed
// decides, and a model of what the node must make of it.
type plan struct {
	rand   *rand.Rand
	listen netip.AddrPort
	head   string // settings of the services, as lines of the file
	all    map[string]netip.AddrPort
	names  []string          // of all, sorted
	file   []planned         // the backends in the file
	hand   map[string]byHand // what was changed by command
	side   bool              // the file has a second service
}

// planned is a backend as the file has it.
type planned struct {
	name   string
	weight int
}

// byHand is a weight that was set by command in place of the file's.
type byHand struct{ weight, file int }

// keepServing is how many backends a plan leaves for new clients.
const keepServing = 2

func newPlan(r *rand.Rand, listen netip.AddrPort, head string, backends map[string]netip.AddrPort) *plan {
	p := &plan{rand: r, listen: listen, head: head, all: backends, hand: make(map[string]byHand)}
	for name := range backends {
		p.names = append(p.names, name)
	}
	slices.Sort(p.names)
	for _, name := range p.names[:len(p.names)-1] {
		p.file = append(p.file, planned{name, 100})
	}
	return p
}

// weight is what the node must give new clients by, when it has taken the file;
// ok: the backend is there.
func (p *plan) weight(name string) (w int, ok bool) {
	i := p.index(name)
	if i < 0 {
		return 0, false
	}
	if h, ok := p.hand[name]; ok && p.file[i].weight == h.file {
		return h.weight, true
	}
	return p.file[i].weight, true
}

func (p *plan) index(name string) int {
	return slices.IndexFunc(p.file, func(b planned) bool { return b.name == name })
}

// serving lists who takes new clients.
func (p *plan) serving() []string {
	return slices.DeleteFunc(slices.Clone(p.names), func(name string) bool {
		w, _ := p.weight(name)
		return w == 0
	})
}

// services writes the services section of the file.
func (p *plan) services() string {
	var b strings.Builder
	fmt.Fprintf(&b, "services:\n  - name: front\n    listen: %q\n%s    backends:\n", p.listen, p.head)
	for _, f := range p.file {
		fmt.Fprintf(&b, "      - {name: %s, address: %q, weight: %d}\n", f.name, p.all[f.name], f.weight)
	}
	if p.side {
		fmt.Fprintf(&b, "  - name: side\n    listen: %q\n%s    backends:\n      - {name: only, address: %q}\n",
			netip.AddrPortFrom(p.listen.Addr(), p.listen.Port()+1), p.head, p.all[p.names[0]])
	}
	return b.String()
}

// reload changes the file by some steps, at least one, and says in words what.
// The node takes it by the next reload.
func (p *plan) reload() (what []string) {
	for range 1 + p.rand.IntN(2) {
		for done := ""; done == ""; {
			done = p.change()
			if done != "" {
				what = append(what, done)
			}
		}
	}
	// What was done by hand lasts until the file changes the weight, or has the
	// backend no longer.
	for name, h := range p.hand {
		if i := p.index(name); i < 0 || p.file[i].weight != h.file {
			delete(p.hand, name)
		}
	}
	return what
}

// change tries one change; "" where it was not possible.
func (p *plan) change() string {
	name := p.names[p.rand.IntN(len(p.names))]
	i := p.index(name)
	w, there := p.weight(name)
	spare := w == 0 || len(p.serving()) > keepServing // whether new clients can do without it
	switch p.rand.IntN(8) {
	case 0, 1: // add
		if there {
			return ""
		}
		p.file = append(p.file, planned{name, 100})
		return "add " + name
	case 2, 3: // remove
		if !there || !spare {
			return ""
		}
		p.file = slices.Delete(p.file, i, i+1)
		return "remove " + name
	case 4: // drain
		if !there || !spare || p.file[i].weight == 0 {
			return ""
		}
		p.file[i].weight = 0
		return "drain " + name
	case 5, 6: // reweight, which ends a drain
		if !there {
			return ""
		}
		p.file[i].weight = 1 + p.rand.IntN(200)
		return fmt.Sprintf("weight of %s %d", name, p.file[i].weight)
	default: // a second service
		p.side = !p.side
		if p.side {
			return "add a second service"
		}
		return "remove the second service"
	}
}

// command changes a backend by hand, and gives the arguments of the command; nil
// where there is nothing to change.
func (p *plan) command() []string {
	name := p.names[p.rand.IntN(len(p.names))]
	i := p.index(name)
	if i < 0 {
		return nil
	}
	w, _ := p.weight(name)
	h, changed := p.hand[name]
	set := func(weight int) {
		if delete(p.hand, name); weight != p.file[i].weight { // else the file says so by itself
			p.hand[name] = byHand{weight, p.file[i].weight}
		}
	}
	switch p.rand.IntN(3) {
	case 0:
		if w == 0 || len(p.serving()) <= keepServing {
			return nil
		}
		set(0)
		return []string{"backend", "drain", "front", name}
	case 1:
		weight := 1 + p.rand.IntN(200)
		if weight == p.file[i].weight {
			return nil
		}
		set(weight)
		return []string{"backend", "weight", "front", name, fmt.Sprint(weight)}
	default:
		if !changed || p.file[i].weight == 0 && h.weight > 0 && len(p.serving()) <= keepServing {
			return nil
		}
		delete(p.hand, name)
		return []string{"backend", "resume", "front", name}
	}
}

// A badFile is a file that must be refused, and what must be said of it.
type badFile struct {
	what     string
	services string
	says     []string
}

// bad writes a file with a mistake, beside changes that are right and must not
// be taken either.
func (p *plan) bad(nowhere netip.Addr) badFile {
	good := p.services()
	right := strings.Replace(good, "    backends:\n", fmt.Sprintf("    backends:\n      - {name: extra, address: %q}\n", netip.AddrPortFrom(p.listen.Addr(), 1)), 1)
	switch p.rand.IntN(4) {
	case 0:
		return badFile{"a key that does not exist", strings.Replace(right, "    listen:", "    lisen: x\n    listen:", 1), []string{"lisen", "holdfast.yaml:"}}
	case 1:
		return badFile{"a weight that is too large", strings.Replace(right, "      - {name: extra,", "      - {name: extra, weight: 70000,", 1), []string{"70000", "weight", "holdfast.yaml:"}}
	case 2:
		return badFile{"a file that ends in the middle", right + "  - {name: half", []string{"holdfast.yaml:"}}
	default:
		other := netip.AddrPortFrom(nowhere, p.listen.Port()).String()
		return badFile{"an address that this host does not have", strings.Replace(right, p.listen.String(), other, 1), []string{other, "not on this host"}}
	}
}
