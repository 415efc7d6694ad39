package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/internal/config"
)

// Options say how a file is converted.
type Options struct {
	// Include reads the files that a pattern names, in the order in which they
	// are included; none is no error. nil: nothing can be included.
	Include func(pattern string) ([]File, error)
}

// File is a file that is included.
type File struct {
	Name string
	Text []byte
}

// Note is something that was not carried over, or not quite as it was.
type Note struct {
	Place
	What string // what, and what to do, in one sentence
}

// String is file:line:column: what.
func (n Note) String() string { return n.Place.String() + ": " + n.What }

func newNote(at Place, format string, args ...any) Note {
	return Note{Place: at, What: oneLine(fmt.Sprintf(format, args...))}
}

// Result is what became of a file.
type Result struct {
	YAML  []byte // a whole holdfast.yaml; the notes are comments in it too
	Notes []Note // in the order of the files

	// Check is nil where the YAML is a valid configuration; else it says why not,
	// with places in the YAML, most often because there was nothing to convert.
	Check error
}

// Keepalived converts a keepalived.conf of that name. The error is an [*Error]
// where the text cannot be read as one.
func Keepalived(name string, text []byte, o Options) (*Result, error) {
	if looksLikeHAProxy(string(text[:min(len(text), maxText)])) {
		return nil, fmt.Errorf("%s: %w", name, errHAProxy)
	}
	c := &converter{scripts: make(map[string]*script), sets: make(map[string]*block), names: make(map[string]bool)}
	p := &parser{o: o, defined: make(map[string]string), notes: &c.notes}
	blocks, err := p.read(name, text, 0)
	if err != nil {
		return nil, err
	}
	c.collect(blocks)
	if i := slices.IndexFunc(c.instances, func(g *group) bool { return !g.three && !c.three }); i >= 0 {
		c.note(&c.nodeNotes, c.instances[i].at, "version 3 of VRRP is spoken, and keepalived speaks version 2 unless it is told: one that stays needs `vrrp_version 3` in its global_defs")
	}
	c.join()
	for _, b := range c.servers {
		c.server(b)
	}
	r := &Result{YAML: c.write(name), Notes: c.notes}
	order := make(map[string]int) // of the files
	for _, n := range r.Notes {
		if _, ok := order[n.File]; !ok {
			order[n.File] = len(order)
		}
	}
	slices.SortStableFunc(r.Notes, func(a, b Note) int {
		if d := order[a.File] - order[b.File]; d != 0 {
			return d
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	_, r.Check = config.Parse("holdfast.yaml", r.YAML)
	return r, nil
}

// converter gathers what is to be written.
type converter struct {
	node      string
	three     bool // vrrp_version 3 is said for all
	nodeNotes []Note
	scripts   map[string]*script
	instances []*group
	syncs     []*sync
	sets      map[string]*block // virtual_server_group
	servers   []*block
	groups    []*group
	services  []*service
	names     map[string]bool
	notes     []Note
}

// group is a vrrp_instance on its way to a group of addresses.
type group struct {
	name, given  string // the one that is written, and the one in the file
	at           Place
	iface        string
	id, priority int
	interval     time.Duration
	preempt      bool
	delay        time.Duration
	three        bool // version 3 is said
	peers        []netip.Addr
	source       netip.Addr
	addresses    []netip.Prefix
	track        []string // interfaces
	scripts      []string
	notify       map[string][]string // by role
	any          []string            // of every change: TYPE NAME STATE PRIORITY are added
	what         string              // INSTANCE or GROUP, for any
	notes        []Note
	sync         *sync
}

// sync is a vrrp_sync_group.
type sync struct {
	name    string
	at      Place
	members []word
	notify  map[string][]string
	any     []string
	track   []string
	scripts []string
	notes   []Note
}

// script is a vrrp_script.
type script struct {
	at         Place
	argv       []string
	interval   time.Duration
	fall, rise int
	weight     bool
	notes      []Note
}

// note notes something about what list belongs to; nil for what belongs to
// nothing that is written.
func (c *converter) note(list *[]Note, at Place, format string, args ...any) {
	n := newNote(at, format, args...)
	c.notes = append(c.notes, n)
	if list != nil {
		*list = append(*list, n)
	}
}

// unknown notes a word that means nothing here: known ones with why.
func (c *converter) unknown(list *[]Note, b *block, reasons map[string]string) {
	name := b.name()
	if why, ok := reasons[name]; ok {
		if why != "" {
			c.note(list, b.at(), "`%s` is not carried over: %s", name, why)
		}
		return
	}
	for prefix, why := range prefixes {
		if strings.HasPrefix(name, prefix) {
			c.note(list, b.at(), "`%s` is not carried over: %s", name, why)
			return
		}
	}
	c.note(list, b.at(), "`%s` is not carried over: this program has nothing for it", name)
}

// prefixes are families of words, and why there is nothing for them.
var prefixes = map[string]string{
	"garp_":        whyGARP,
	"vrrp_garp_":   whyGARP,
	"gna_":         whyGARP,
	"vrrp_gna_":    whyGARP,
	"smtp_":        whyMail,
	"lvs_":         "there is no IPVS here",
	"snmp_":        "there is no SNMP here; Prometheus finds metrics under /metrics",
	"enable_snmp":  "there is no SNMP here; Prometheus finds metrics under /metrics",
	"dbus_":        "there is no D-Bus here; the admin socket answers what status asks",
	"enable_dbus":  "there is no D-Bus here; the admin socket answers what status asks",
	"vrrp_rt_":     whyRealTime,
	"checker_rt_":  whyRealTime,
	"bfd_":         "there is no BFD here",
	"vrrp_notify_": "commands are run by `notify`, without a fifo",
	"notify_fifo":  "commands are run by `notify`, without a fifo",
	"lvs_notify_":  "events are read by `holdfast events --follow`",
	"static_":      "addresses, routes and rules that stay are the network manager's",
	"process_name": whyProcess,
	"vrrp_process": whyProcess,
	"checker_proc": whyProcess,
}

const (
	whyGARP     = "when addresses are announced again is fixed, and the first announcements go out at once"
	whyMail     = "there is no mail here; packaging/prometheus has alerts, and `notify` runs commands"
	whyRealTime = "the process that owns addresses has a real-time priority where the system gives it one"
	whyProcess  = "the names of processes are fixed"
)

// collect takes the statements of the top level.
func (c *converter) collect(blocks []*block) {
	for _, b := range blocks {
		switch b.name() {
		case "global_defs":
			c.global(b)
		case "vrrp_script":
			c.script(b)
		case "vrrp_instance":
			c.instance(b)
		case "vrrp_sync_group":
			c.syncGroup(b)
		case "virtual_server_group":
			c.sets[b.arg(0)] = b
		case "virtual_server":
			c.servers = append(c.servers, b)
		default:
			c.unknown(&c.nodeNotes, b, topLevel)
		}
	}
}

var topLevel = map[string]string{
	"vrrp_track_process":   "track a command that looks for the process, as `track: {command: [/usr/bin/pgrep, -x, NAME]}`",
	"vrrp_track_file":      "track a command that reads the file",
	"track_file":           "track a command that reads the file",
	"net_namespace":        "start the node in the namespace: `ip netns exec NAME holdfast run`",
	"instance":             "several nodes on one machine need an `admin.socket` and `directories` each",
	"linkbeat_use_polling": "the kernel tells about links",
}

var globals = map[string]string{
	"notification_email": whyMail, "notification_email_from": whyMail,
	"vrrp_strict": "the protocol is that of RFC 9568 in any case", "vrrp_skip_check_adv_addr": "every advert is checked",
	"vrrp_mcast_group4": "adverts go to the group of the RFC, 224.0.0.18, or to `vrrp.peers`", "vrrp_mcast_group6": "adverts go to the group of the RFC, ff02::12, or to `vrrp.peers`",
	"script_user": "commands run as the node's user", "enable_script_security": "commands run as the node's user, without a shell",
	"dynamic_interfaces": "", "allow_if_changes": "", "vrrp_priority": whyRealTime, "vrrp_no_swap": "", "checker_priority": whyRealTime, "checker_no_swap": "",
	"max_auto_priority": whyRealTime, "vrrp_iptables": "the kernel program of the lease needs no rules", "vrrp_ipsets": "the kernel program of the lease needs no rules",
	"default_interface": "each group names its own", "use_pid_dir": "`directories.runtime` is the place for it", "log_unknown_vrids": "strangers' adverts are in the events",
}

func (c *converter) global(b *block) {
	for _, s := range b.in {
		switch s.name() {
		case "router_id":
			if name := cleanName(s.arg(0)); name != "" {
				c.node = name
				if name != s.arg(0) {
					c.note(&c.nodeNotes, s.at(), "the name %q became %q: it stands in commands and metrics", s.arg(0), name)
				}
			}
		case "vrrp_version":
			c.three = s.arg(0) == "3"
		default:
			c.unknown(&c.nodeNotes, s, globals)
		}
	}
}

// cleanName makes a name of what may not be one; "" where nothing is left.
func cleanName(given string) string {
	var b strings.Builder
	for _, r := range given {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._-:[]", r):
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
	}
	name := strings.TrimLeft(b.String(), "-.:]")
	return name[:min(len(name), 60)]
}

// named makes a name that nothing else has. A group must not look like an
// address, which commands take in its place.
func (c *converter) named(space, given, fallback string) string {
	name := cleanName(given)
	if name == "" {
		name = fallback
	}
	if _, err := netip.ParseAddr(name); err == nil && space == "group" {
		name = "group-" + strings.TrimLeft(name, ":")
	}
	for i, base := 2, name; c.names[space+" "+name]; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
	}
	c.names[space+" "+name] = true
	return name
}
