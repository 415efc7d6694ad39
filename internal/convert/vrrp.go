package convert

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/internal/config"
)

// seconds understands a number of seconds, which may have a fraction.
func seconds(text string) (time.Duration, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > 1e6 {
		return 0, fmt.Errorf("%q is no number of seconds", text)
	}
	return time.Duration(math.Round(f*1e3)) * time.Millisecond, nil
}

// whole understands a whole number within bounds.
func whole(text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q is no number from %d to %d", text, least, most)
	}
	return n, nil
}

// surplus notes words that nobody reads: a line is one statement.
func (c *converter) surplus(list *[]Note, b *block, n int) {
	if more := b.args(); len(more) > n {
		c.note(list, b.at(), "`%s` has more words than are read, from %q on; a line is one statement", b.name(), more[n])
	}
}

// number reads the argument of a statement; what is wrong with it is noted.
func (c *converter) number(list *[]Note, b *block, least, most, otherwise int) int {
	c.surplus(list, b, 1)
	n, err := whole(b.arg(0), least, most)
	if err != nil {
		c.note(list, b.at(), "`%s`: %v; left out", b.name(), err)
		return otherwise
	}
	return n
}

func (c *converter) duration(list *[]Note, b *block, least, most, otherwise time.Duration) time.Duration {
	c.surplus(list, b, 1)
	d, err := seconds(b.arg(0))
	switch {
	case err != nil:
		c.note(list, b.at(), "`%s`: %v; left out", b.name(), err)
		return otherwise
	case d < least || d > most:
		c.note(list, b.at(), "`%s %s` is not from %v to %v here; it became %v", b.name(), b.arg(0), least, most, min(max(d, least), most))
	}
	return min(max(d, least), most)
}

// command is a program and its arguments: one quoted word is a whole command
// line.
func command(words []word) ([]string, error) {
	var argv []string
	for i, w := range words {
		if w.kind == quoted && i == 0 && strings.ContainsAny(w.text, " \t") {
			parts, err := split(w.text)
			if err != nil {
				return nil, err
			}
			argv = append(argv, parts...)
			continue
		}
		argv = append(argv, w.text)
	}
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("no program is named")
	}
	if strings.ContainsRune(strings.Join(argv, ""), 0) {
		return nil, errors.New("it has a NUL in it")
	}
	if strings.Contains(argv[0], "/") && !strings.HasPrefix(argv[0], "/") {
		return nil, fmt.Errorf("%q would depend on the directory that the node is started in; write a path that begins with /", argv[0])
	}
	if len(argv) == 1 && strings.ContainsAny(argv[0], " \t") {
		return nil, fmt.Errorf("%q has spaces in the name of the program", argv[0])
	}
	return argv, nil
}

// split takes a command line apart as a shell does with quotes, and with nothing
// else.
func split(text string) (argv []string, err error) {
	var b strings.Builder
	var in rune
	has, escaped := false, false
	for _, c := range text {
		switch {
		case escaped:
			b.WriteRune(c)
			escaped = false
		case c == '\\' && in != '\'':
			escaped, has = true, true
		case in != 0 && c == in:
			in = 0
		case in != 0:
			b.WriteRune(c)
		case c == '\'' || c == '"':
			in, has = c, true
		case c == ' ' || c == '\t':
			if has {
				argv = append(argv, b.String())
			}
			b.Reset()
			has = false
		default:
			b.WriteRune(c)
			has = true
		}
	}
	if in != 0 {
		return nil, fmt.Errorf("%q has a quote that is not closed", text)
	}
	if has {
		argv = append(argv, b.String())
	}
	return argv, nil
}

func (c *converter) script(b *block) {
	s := &script{at: b.at(), interval: time.Second, fall: 1, rise: 1}
	for _, in := range b.in {
		switch in.name() {
		case "script":
			argv, err := command(in.words[1:])
			if err != nil {
				c.note(&s.notes, in.at(), "`script` is not carried over: %v", err)
			}
			s.argv = argv
		case "interval":
			s.interval = c.duration(&s.notes, in, 10*time.Millisecond, time.Hour, time.Second)
		case "timeout":
			if d, err := seconds(in.arg(0)); err == nil && d != s.interval {
				c.note(&s.notes, in.at(), "`timeout %s`: a run of the command may take as long as its interval", in.arg(0))
			}
		case "fall":
			s.fall = c.number(&s.notes, in, 1, 1000, 1)
		case "rise":
			s.rise = c.number(&s.notes, in, 1, 1000, 1)
		case "weight":
			s.weight = in.arg(0) != "0"
		default:
			c.unknown(&s.notes, in, map[string]string{
				"user":      "commands run as the node's user",
				"init_fail": "until the command has ended once, the node does not own the group in any case",
			})
		}
	}
	c.scripts[b.arg(0)] = s
}

// instanceWords are words of a vrrp_instance that have no counterpart, and why; ""
// where nothing is lost.
var instanceWords = map[string]string{
	"state":                      "",
	"nopreempt":                  "",
	"dont_track_primary":         "the group's own interface is always watched",
	"authentication":             "VRRP has none since version 3, and the link of `pair` proves who the other node is",
	"use_vmac":                   "the interface's own MAC address is used, and gratuitous ARP",
	"use_vmac_addr":              "the interface's own MAC address is used, and gratuitous ARP",
	"vmac_xmit_base":             "the interface's own MAC address is used, and gratuitous ARP",
	"use_ipvlan":                 "the interface's own MAC address is used, and gratuitous ARP",
	"mcast_src_ip":               "adverts have the interface's own address",
	"mcast_dst_ip":               "adverts go to the group of the RFC, or to `vrrp.peers`",
	"unicast_fault_no_peer":      "`peers` are in the file, or there are none",
	"native_ipv6":                "",
	"accept":                     "",
	"no_accept":                  "a node accepts what is sent to the addresses that it owns",
	"strict_mode":                "the protocol is that of RFC 9568 in any case",
	"debug":                      "`log: {level: debug}` is for the whole node",
	"smtp_alert":                 whyMail,
	"no_smtp_alert":              "",
	"virtual_routes":             "routes are the network manager's; a `notify` command can set them",
	"virtual_rules":              "rules are the network manager's; a `notify` command can set them",
	"track_process":              "track a command that looks for the process, as `track: {command: [/usr/bin/pgrep, -x, NAME]}`",
	"track_file":                 "track a command that reads the file",
	"track_bfd":                  "there is no BFD here",
	"track_src_ip":               "adverts have the interface's own address",
	"down_timer_adverts":         "three intervals, as in the RFC",
	"higher_prio_send_advert":    "that of the RFC is done: the larger priority stays",
	"notify_stop":                "a node that stops hands over first: the other node's `active` command is run",
	"notify_deleted":             "a group that leaves the file is released first",
	"notify_master_rx_lower_pri": "`holdfast events` shows what was heard",
	"notify_priority_changes":    "priorities do not change by themselves",
	"preempt":                    "",
	"skip_check_adv_addr":        "every advert is checked",
	"promote_secondaries":        "addresses have lengths of their own",
	"kernel_rx_buf_size":         "the size of the receive buffers is fixed",
	"checksum_compatibility":     "IPv4 adverts have the checksum that keepalived wants",
	"lvs_sync_daemon_interface":  "there is no IPVS here",
}

func (c *converter) instance(b *block) {
	g := &group{given: b.arg(0), at: b.at(), priority: 100, interval: time.Second, preempt: true, notify: make(map[string][]string), what: "INSTANCE"}
	var dev []*block // addresses on another interface
	for _, in := range b.in {
		switch name := in.name(); name {
		case "interface":
			c.surplus(&g.notes, in, 1)
			g.iface = in.arg(0)
		case "virtual_router_id":
			g.id = c.number(&g.notes, in, 1, 255, 0)
		case "priority":
			g.priority = c.number(&g.notes, in, 1, 255, 100)
		case "advert_int":
			g.advertInt(c, in)
		case "nopreempt":
			g.preempt = false
		case "preempt_delay":
			g.delay = c.duration(&g.notes, in, 0, 24*time.Hour, 0)
		case "unicast_peer":
			for _, p := range in.in {
				a, err := netip.ParseAddr(p.name())
				if err != nil {
					c.note(&g.notes, p.at(), "the peer %q is no IP address; left out", p.name())
					continue
				}
				g.peers = append(g.peers, a.Unmap().WithZone(""))
			}
		case "unicast_src_ip":
			if a, err := netip.ParseAddr(in.arg(0)); err == nil {
				g.source = a.Unmap()
			}
			c.note(&g.notes, in.at(), "`unicast_src_ip %s` is not carried over: adverts have the interface's own address; the other router must take them from there", in.arg(0))
		case "version":
			g.three = in.arg(0) == "3"
		case "virtual_ipaddress":
			dev = append(dev, in.in...)
		case "virtual_ipaddress_excluded":
			c.note(&g.notes, in.at(), "`virtual_ipaddress_excluded`: all addresses of a group are in its adverts; a keepalived that stays must have them in `virtual_ipaddress`")
			dev = append(dev, in.in...)
		case "track_interface":
			g.track = append(g.track, c.interfaces(&g.notes, in)...)
		case "track_script":
			g.scripts = append(g.scripts, c.tracked(&g.notes, in)...)
		case "notify_master", "notify_backup", "notify_fault", "notify":
			c.notify(&g.notes, in, g.notify, &g.any)
		default:
			c.unknown(&g.notes, in, instanceWords)
		}
	}
	for _, a := range dev {
		g.address(c, a)
	}
	if g.delay > 0 && !g.preempt {
		g.delay = 0
	}
	c.instances = append(c.instances, g)
}

func (g *group) advertInt(c *converter, b *block) {
	d := c.duration(&g.notes, b, 10*time.Millisecond, 40*time.Second, time.Second)
	g.interval = max(d.Round(10*time.Millisecond), 10*time.Millisecond)
	if g.interval != d {
		c.note(&g.notes, b.at(), "`advert_int %s` became %v: VRRP counts in hundredths of a second", b.arg(0), g.interval)
	}
}

// address takes one line of virtual_ipaddress.
func (g *group) address(c *converter, b *block) {
	text := b.name()
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, errAddr := netip.ParseAddr(text)
		if errAddr != nil || a.Zone() != "" {
			c.note(&g.notes, b.at(), "%q is no address; left out", text)
			return
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		c.note(&g.notes, b.at(), "%q is an IPv4 address in IPv6 form; left out", text)
		return
	}
	if err := config.CheckOwned(p); err != nil {
		c.note(&g.notes, b.at(), "%s is left out: %v", p, err)
		return
	}
	words := b.args()
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch w := words[i]; w {
		case "dev":
			i++
			if g.iface == "" {
				g.iface = value
			}
			if value != g.iface {
				c.note(&g.notes, b.at(), "%s is on %s, and a group has one interface, %s; left out: make a group of its own for it, which tracks %s", p, value, g.iface, g.iface)
				return
			}
		case "brd", "broadcast":
			i++
			c.note(&g.notes, b.at(), "`%s %s` of %s is not carried over: the kernel knows the broadcast address of a network", w, value, p)
		case "scope":
			i++
			if value != "global" && value != "0" {
				c.note(&g.notes, b.at(), "`scope %s` of %s is not carried over", value, p)
			}
		case "label":
			i++
			c.note(&g.notes, b.at(), "`label %s` of %s is not carried over: addresses have no labels", value, p)
		case "-nodad", "noprefixroute", "home", "mngtmpaddr", "autojoin", "no_track", "track_group", "use_vmac", "preferred_lft", "metric", "peer":
			if slices.Contains([]string{"preferred_lft", "metric", "peer", "track_group"}, w) {
				i++
			}
			c.note(&g.notes, b.at(), "`%s` of %s is not carried over", w, p)
		default:
			c.note(&g.notes, b.at(), "%q of %s is not known to this program; left out", w, p)
		}
	}
	if slices.ContainsFunc(g.addresses, func(q netip.Prefix) bool { return q.Addr() == p.Addr() }) {
		c.note(&g.notes, b.at(), "%v is here twice; left out", p.Addr())
		return
	}
	g.addresses = append(g.addresses, p)
}

// interfaces are those of track_interface.
func (c *converter) interfaces(list *[]Note, b *block) []string {
	var all []string
	for _, in := range b.in {
		if i := slices.Index(in.args(), "weight"); i >= 0 && in.arg(i+1) != "0" {
			c.note(list, in.at(), "`weight %s` of %s: priorities do not change by themselves; without it the node cannot own the group", in.arg(i+1), in.name())
		}
		all = append(all, in.name())
	}
	return all
}

// tracked are the scripts of track_script.
func (c *converter) tracked(list *[]Note, b *block) []string {
	var all []string
	for _, in := range b.in {
		s := c.scripts[in.name()]
		weight := false
		if i := slices.Index(in.args(), "weight"); i >= 0 {
			weight = in.arg(i+1) != "0"
		} else if s != nil {
			weight = s.weight
		}
		if weight {
			c.note(list, in.at(), "the weight of %s: priorities do not change by themselves; while it fails, the node cannot own the group", in.name())
		}
		all = append(all, in.name())
	}
	return all
}

// notify takes one of the notify words.
func (c *converter) notify(list *[]Note, b *block, roles map[string][]string, every *[]string) {
	words := b.words[1:]
	// What stands behind the command in quotes is a user and a group.
	if len(words) > 1 && words[0].kind == quoted {
		c.note(list, b.at(), "`%s`: the command runs as the node's user, not as %s", b.name(), words[1].text)
		words = words[:1]
	}
	argv, err := command(words)
	if err != nil {
		c.note(list, b.at(), "`%s` is not carried over: %v", b.name(), err)
		return
	}
	role, ok := map[string]string{"notify_master": "active", "notify_backup": "backup", "notify_fault": "fault"}[b.name()]
	switch {
	case !ok:
		*every = argv
	case roles[role] != nil:
		c.note(list, b.at(), "a second `%s`; left out", b.name())
	default:
		roles[role] = argv
	}
}

func (c *converter) syncGroup(b *block) {
	s := &sync{name: b.arg(0), at: b.at(), notify: make(map[string][]string)}
	for _, in := range b.in {
		switch in.name() {
		case "group":
			for _, m := range in.in {
				s.members = append(s.members, m.words...)
			}
		case "notify_master", "notify_backup", "notify_fault", "notify":
			c.notify(&s.notes, in, s.notify, &s.any)
		case "track_interface":
			s.track = append(s.track, c.interfaces(&s.notes, in)...)
		case "track_script":
			s.scripts = append(s.scripts, c.tracked(&s.notes, in)...)
		default:
			c.unknown(&s.notes, in, map[string]string{
				"global_tracking": "", "sync_group_tracking_weight": "priorities do not change by themselves", "smtp_alert": whyMail, "no_smtp_alert": "",
				"track_process": topLevel["vrrp_track_process"], "track_file": topLevel["vrrp_track_file"], "track_bfd": "there is no BFD here",
			})
		}
	}
	c.syncs = append(c.syncs, s)
}

// join makes groups of instances: those that move together on one interface are
// one.
func (c *converter) join() {
	byName := make(map[string]*group)
	for _, g := range c.instances {
		if byName[g.given] != nil {
			c.note(nil, g.at, "there is a second vrrp_instance %s; left out", g.given)
			continue
		}
		byName[g.given] = g
		c.groups = append(c.groups, g)
	}
	for _, s := range c.syncs {
		c.joinSync(s, byName)
	}
	c.joinIDs()
	c.groups = slices.DeleteFunc(c.groups, func(g *group) bool { return !c.usable(g) })
	for i, g := range c.groups {
		g.name = c.named("group", g.name, fmt.Sprintf("group-%d", i+1))
	}
}

func (c *converter) joinSync(s *sync, byName map[string]*group) {
	var first []*group // one for each interface
	for _, m := range s.members {
		g := byName[m.text]
		switch {
		case g == nil:
			c.note(&s.notes, m.at, "the sync group %s names %s, which is no vrrp_instance; left out", s.name, m.text)
			continue
		case g.sync != nil:
			c.note(&s.notes, m.at, "%s is in two sync groups; it stays in %s", m.text, g.sync.name)
			continue
		}
		g.sync = s
		if i := slices.IndexFunc(first, func(f *group) bool { return f.iface == g.iface }); i >= 0 {
			c.merge(first[i], g, fmt.Sprintf("the sync group %s", s.name))
			continue
		}
		first = append(first, g)
	}
	for i, g := range first {
		g.notes = append(slices.Clone(s.notes), g.notes...)
		if i == 0 {
			g.name = s.name
		}
		g.track, g.scripts = append(g.track, s.track...), append(g.scripts, s.scripts...)
		for _, other := range first {
			if other != g && other.iface != "" {
				g.track = append(g.track, other.iface)
			}
		}
		if len(first) > 1 {
			c.note(&g.notes, s.at, "the sync group %s is on several interfaces, and a group of addresses has one: %s became a group of its own, which tracks the others' interfaces", s.name, g.given)
		}
		if i > 0 {
			continue // told once
		}
		for role, argv := range s.notify {
			if g.notify[role] == nil {
				g.notify[role] = argv
			} else {
				c.note(&g.notes, s.at, "the %s command of the sync group %s is left out: %s has one of its own", role, s.name, g.given)
			}
		}
		if s.any != nil && g.any == nil {
			g.any, g.what = s.any, "GROUP"
		}
	}
}

// merge makes g a part of into.
func (c *converter) merge(into, g *group, why string) {
	given := ""
	if g.id != into.id {
		given = fmt.Sprintf(", its id %d given up for %d", g.id, into.id)
	}
	if g.priority != into.priority {
		given += fmt.Sprintf(", its priority %d for %d", g.priority, into.priority)
	}
	if g.interval != into.interval {
		given += fmt.Sprintf(", its advert_int %v for %v", g.interval, into.interval)
	}
	c.note(&into.notes, g.at, "%s became a part of %s, by %s%s; a keepalived that stays needs one vrrp_instance for each family, both with the id %d", g.given, into.given, why, given, into.id)
	into.notes = append(into.notes, g.notes...)
	into.addresses = append(into.addresses, g.addresses...)
	into.peers = append(into.peers, g.peers...)
	into.track = append(into.track, g.track...)
	into.scripts = append(into.scripts, g.scripts...)
	into.preempt = into.preempt && g.preempt
	into.delay = max(into.delay, g.delay)
	for role, argv := range g.notify {
		if into.notify[role] == nil {
			into.notify[role] = argv
		} else if !slices.Equal(argv, into.notify[role]) {
			c.note(&into.notes, g.at, "the %s command of %s is left out: %s has one of its own", role, g.given, into.given)
		}
	}
	if into.any == nil {
		into.any = g.any
	}
	g.iface = "" // it is gone
	c.groups = slices.DeleteFunc(c.groups, func(o *group) bool { return o == g })
}

// joinIDs makes one group of those that have an id of an interface twice: one for
// each family.
func (c *converter) joinIDs() {
	for i := 0; i < len(c.groups); i++ { //nolint:intrange // merge takes one away
		for j := i + 1; j < len(c.groups); j++ {
			a, b := c.groups[i], c.groups[j]
			if a.id == b.id && a.id > 0 && a.iface == b.iface {
				c.merge(a, b, "their one id")
				j--
			}
		}
	}
}

// usable tidies a group up, and reports whether it can be written.
func (c *converter) usable(g *group) bool {
	g.name = cmp.Or(g.name, g.given)
	switch {
	case config.CheckInterface(g.iface) != nil:
		c.note(nil, g.at, "%s is left out: %v", g.given, config.CheckInterface(g.iface))
		return false
	case g.id == 0:
		c.note(nil, g.at, "%s is left out: it has no virtual_router_id", g.given)
		return false
	}
	own := func(a netip.Addr) bool {
		return slices.ContainsFunc(c.groups, func(o *group) bool {
			return slices.ContainsFunc(o.addresses, func(p netip.Prefix) bool { return p.Addr() == a })
		})
	}
	seen := make(map[netip.Addr]bool)
	has4, has6 := false, false
	g.addresses = slices.DeleteFunc(g.addresses, func(p netip.Prefix) bool {
		a := p.Addr()
		twice := seen[a] || c.names["address "+a.String()+g.zone(a)]
		if twice {
			c.note(&g.notes, g.at, "%v is an address of two groups; left out of %s", a, g.given)
		}
		seen[a] = true
		c.names["address "+a.String()+g.zone(a)] = true
		if !twice {
			has4, has6 = has4 || a.Is4(), has6 || a.Is6()
		}
		return twice
	})
	if len(g.addresses) == 0 {
		c.note(nil, g.at, "%s is left out: it has no address", g.given)
		return false
	}
	peers := make(map[netip.Addr]bool)
	peer4, peer6 := false, false
	g.peers = slices.DeleteFunc(g.peers, func(a netip.Addr) bool {
		drop := peers[a] || a.Is4() && !has4 || a.Is6() && !has6 || own(a) || !a.IsGlobalUnicast() && !a.IsLinkLocalUnicast()
		if drop && !peers[a] {
			c.note(&g.notes, g.at, "the peer %v of %s is left out: adverts to it would be about none of the addresses", a, g.given)
		}
		peers[a] = true
		if !drop {
			peer4, peer6 = peer4 || a.Is4(), peer6 || a.Is6()
		}
		return drop
	})
	if len(g.peers) > 0 && (has4 && !peer4 || has6 && !peer6) {
		c.note(&g.notes, g.at, "the peers of %s are of one family, and its addresses of both: adverts go to the multicast group; add a peer of the other family to `peers`", g.given)
		g.peers = nil
	}
	g.tidyTrack(c)
	return true
}

// zone is what a link-local address is known by besides.
func (g *group) zone(a netip.Addr) string {
	if a.IsLinkLocalUnicast() {
		return "%" + g.iface
	}
	return ""
}

func (g *group) tidyTrack(c *converter) {
	var interfaces []string
	for _, name := range g.track {
		err := config.CheckInterface(name)
		if err != nil {
			c.note(&g.notes, g.at, "the tracked interface %q of %s is left out: %v", name, g.given, err)
		}
		if err == nil && name != g.iface && !slices.Contains(interfaces, name) {
			interfaces = append(interfaces, name)
		}
	}
	g.track = interfaces
	var scripts []string
	for _, name := range g.scripts {
		switch s := c.scripts[name]; {
		case s == nil:
			c.note(&g.notes, g.at, "%s tracks the script %s, which is not in the file; left out", g.given, name)
		case s.argv == nil:
			c.note(&g.notes, s.at, "the script %s has no command; left out", name)
		case !slices.Contains(scripts, name):
			scripts = append(scripts, name)
			g.notes = append(g.notes, s.notes...)
		}
	}
	g.scripts = scripts
	if len(scripts) > 1 {
		c.note(&g.notes, g.at, "the scripts %s of %s became one command, which runs one after the other", strings.Join(scripts, ", "), g.given)
	}
}
