package convert

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// writer writes YAML.
type writer struct{ strings.Builder }

func (w *writer) line(indent int, format string, args ...any) {
	w.WriteString(strings.Repeat("  ", indent) + fmt.Sprintf(format, args...) + "\n")
}

// notes writes notes as comments.
func (w *writer) notes(indent int, notes []Note) {
	for i, n := range notes {
		if !slices.Contains(notes[:i], n) {
			w.line(indent, "# %s", oneLine(n.String()))
		}
	}
}

// safe are texts that need no quotes in YAML; what looks like a number, a word
// for true, or nothing does.
var (
	safe     = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./@%+=-]*$`)
	reserved = regexp.MustCompile(`^(?i:true|false|yes|no|on|off|null|y|n)$`)
)

func yaml(s string) string {
	if safe.MatchString(s) && !reserved.MatchString(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c >= 0x7f && c <= 0x9f || c == '\u2028' || c == '\u2029' || c == '\uFEFF' || c == '\uFFFD':
			fmt.Fprintf(&b, `\U%08x`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func list[T any](all []T, text func(T) string) string {
	var parts []string
	for _, a := range all {
		parts = append(parts, text(a))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func quoteList[T fmt.Stringer](all []T) string {
	return list(all, func(a T) string { return yaml(a.String()) })
}

// write writes the whole file.
func (c *converter) write(name string) []byte {
	var w writer
	w.line(0, "# Made of %s by holdfast convert. What could not be carried over stands beside where it", oneLine(name))
	w.line(0, "# belongs, with its place there.")
	w.notes(0, c.nodeNotes)
	used := make(map[Note]bool)
	for _, list := range [][]Note{c.nodeNotes} {
		for _, n := range list {
			used[n] = true
		}
	}
	for _, g := range c.groups {
		for _, n := range g.notes {
			used[n] = true
		}
	}
	for _, s := range c.services {
		for _, n := range s.notes {
			used[n] = true
		}
	}
	w.notes(0, slices.DeleteFunc(slices.Clone(c.notes), func(n Note) bool { return used[n] }))
	if c.node != "" {
		w.line(0, "node: %s", yaml(c.node))
	}
	w.WriteString("\n")
	if len(c.groups) > 0 {
		c.writePair(&w)
		w.line(0, "addresses:")
		for _, g := range c.groups {
			c.writeGroup(&w, g)
		}
	}
	if len(c.services) > 0 {
		if len(c.groups) > 0 {
			w.WriteString("\n")
		}
		w.line(0, "services:")
		for _, s := range c.services {
			w.service(s)
		}
	}
	return []byte(w.String())
}

// writePair says what a second Holdfast node would need.
func (c *converter) writePair(w *writer) {
	listen, peer := "ADDRESS-OF-THIS-NODE:7420", "ADDRESS-OF-THE-OTHER-NODE:7420"
	for _, g := range c.groups {
		if g.source.IsValid() && len(g.peers) == 1 && g.source.Is4() == g.peers[0].Is4() && g.source.Is4() {
			listen, peer = g.source.String()+":7420", g.peers[0].String()+":7420"
		}
	}
	w.line(0, "# Where the other node runs Holdfast too, this is the link between them (holdfast pair init):")
	w.line(0, "# pair: {listen: %s, peer: %s, keys: /etc/holdfast/pair, witness: THE-GATEWAY}", yaml(listen), yaml(peer))
	w.WriteString("\n")
}

func (c *converter) writeGroup(w *writer, g *group) {
	w.notes(1, g.notes)
	w.line(1, "- name: %s", yaml(g.name))
	w.line(2, "interface: %s", yaml(g.iface))
	w.line(2, "addresses: %s", quoteList(g.addresses))
	vrrp := fmt.Sprintf("id: %d, priority: %d, interval: %v", g.id, g.priority, g.interval)
	if g.preempt {
		vrrp += ", preempt: true"
		if g.delay > 0 {
			vrrp += fmt.Sprintf(", preempt_delay: %v", g.delay)
		}
	}
	if len(g.peers) > 0 {
		vrrp += ", peers: " + quoteList(g.peers)
	}
	w.line(2, "vrrp: {%s}", vrrp)
	c.writeTrack(w, g)
	roles := []struct{ key, state string }{{"active", "MASTER"}, {"backup", "BACKUP"}, {"fault", "FAULT"}}
	var notify []string
	for _, r := range roles {
		argv := g.notify[r.key]
		if argv == nil && g.any != nil {
			argv = append(slices.Clone(g.any), g.what, cmp.Or(map[bool]string{true: g.name}[g.what == "GROUP"], g.given), r.state, fmt.Sprint(g.priority))
		}
		if argv != nil {
			notify = append(notify, fmt.Sprintf("%s: %s", r.key, list(argv, yaml)))
		}
	}
	if len(notify) > 0 {
		w.line(2, "notify:")
		for _, n := range notify {
			w.line(3, "%s", n)
		}
	}
}

func (c *converter) writeTrack(w *writer, g *group) {
	var parts []string
	if len(g.track) > 0 {
		parts = append(parts, "interfaces: "+list(g.track, yaml))
	}
	if len(g.scripts) > 0 {
		first := c.scripts[g.scripts[0]]
		argv, interval, fall, rise := first.argv, first.interval, first.fall, first.rise
		if len(g.scripts) > 1 {
			var lines []string
			for _, name := range g.scripts {
				s := c.scripts[name]
				lines = append(lines, list2shell(s.argv))
				interval, fall, rise = min(interval, s.interval), max(fall, s.fall), max(rise, s.rise)
			}
			argv = []string{"/bin/sh", "-c", strings.Join(lines, " && ")}
		}
		parts = append(parts, "command: "+list(argv, yaml), fmt.Sprintf("interval: %v, fall: %d, rise: %d", interval, fall, rise))
	}
	if len(parts) > 0 {
		w.line(2, "track: {%s}", strings.Join(parts, ", "))
	}
}

// list2shell writes arguments so that a shell takes them apart as they are.
func list2shell(argv []string) string {
	var parts []string
	for _, a := range argv {
		if safe.MatchString(a) {
			parts = append(parts, a)
			continue
		}
		parts = append(parts, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(parts, " ")
}

func (w *writer) service(s *service) {
	w.notes(1, s.notes)
	w.line(1, "- name: %s", yaml(s.name))
	w.line(2, "listen: %s", list(s.listen, yaml))
	w.line(2, "balance: %s", s.balance)
	if len(s.backends) == 0 {
		w.line(2, "backends: []")
	} else {
		w.line(2, "backends:")
	}
	for _, b := range s.backends {
		text := fmt.Sprintf("address: %s, weight: %d", yaml(b.address), b.weight)
		if b.most > 0 {
			text += fmt.Sprintf(", max_connections: %d", b.most)
		}
		if b.backup {
			text += ", backup: true"
		}
		w.line(3, "- {%s}", text)
	}
	k := s.check
	if k == nil {
		w.line(2, "health: {none: {}}")
		return
	}
	var inner []string
	add := func(key, value string) { inner = append(inner, key+": "+value) }
	switch k.kind {
	case "http":
		add("path", yaml(k.path))
		if k.status != "" {
			add("status", `"`+k.status+`"`)
		}
		if host := cmp.Or(k.host, s.host); host != "" && !strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			add("host", yaml(host))
		}
	case "exchange":
		add("expect", `"220"`)
	case "command":
		add("argv", list(k.argv, yaml))
	}
	if k.kind != "command" {
		if k.port > 0 {
			add("port", fmt.Sprint(k.port))
		}
		if k.address != "" {
			add("address", yaml(k.address))
		}
		if k.tls {
			add("tls", "{insecure: true}")
		}
	}
	health := fmt.Sprintf("%s: {%s}, interval: %v", k.kind, strings.Join(inner, ", "), s.interval)
	if k.timeout > 0 {
		health += fmt.Sprintf(", timeout: %v", min(k.timeout, time.Hour))
	}
	if k.fall > 0 {
		health += fmt.Sprintf(", fall: %d", k.fall)
	}
	w.line(2, "health: {%s}", health)
}
