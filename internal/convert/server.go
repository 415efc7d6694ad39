package convert

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// service is a virtual_server.
type service struct {
	name     string
	at       Place
	listen   []string
	balance  string
	backends []backend
	check    *check // nil: backends are not checked
	interval time.Duration
	host     string // for an HTTP check
	notes    []Note
}

type backend struct {
	address string
	weight  int
	most    int
	backup  bool
}

// check is a health check of a real_server.
type check struct {
	at      Place
	kind    string // tcp, http, exchange, command
	path    string
	status  string
	host    string
	port    int
	address string
	tls     bool
	argv    []string
	timeout time.Duration
	fall    int
}

func (c *check) same(d *check) bool {
	if c == nil || d == nil {
		return c == d
	}
	a, b := *c, *d
	a.at, b.at = Place{}, Place{}
	return a.kind == b.kind && a.path == b.path && a.status == b.status && a.host == b.host && a.port == b.port && a.address == b.address &&
		a.tls == b.tls && slices.Equal(a.argv, b.argv) && a.timeout == b.timeout && a.fall == b.fall
}

var balances = map[string]struct{ policy, why string }{
	"rr": {"round-robin", ""}, "wrr": {"round-robin", ""}, "lc": {"least-connections", ""}, "wlc": {"least-connections", ""},
	"sh": {"source-hash", ""}, "mh": {"source-hash", ""},
	"sed": {"least-connections", "the nearest there is"}, "nq": {"least-connections", "the nearest there is"},
	"fo": {"least-connections", "give the servers that wait `backup: true`"}, "ovf": {"least-connections", "give servers `max_connections`"},
	"dh": {"least-connections", "there is no choice by the destination"}, "lblc": {"least-connections", "there is no choice by the destination"}, "lblcr": {"least-connections", "there is no choice by the destination"},
}

const whyIPVS = "there is no IPVS here: the relay carries the connections"

var serverWords = map[string]string{
	"ops": whyIPVS, "persistence_engine": whyIPVS, "persistence_granularity": "all clients of one address get the same backend", "protocol": "",
	"ha_suspend": "a service listens on both nodes all the time", "alpha": "a backend begins as its first checks say", "omega": "", "inhibit_on_failure": "a backend that is down keeps its place and its weight",
	"quorum": "`holdfast status` and the alerts say how many backends are up", "hysteresis": "`fall` and `rise` do it", "quorum_up": "events say when backends go up and down",
	"quorum_down": "events say when backends go up and down", "delay_before_retry": "a check is tried again after its interval", "warmup": "checks are spread over the interval",
	"retry": "say it in the check", "service_type": "there is no firewall mark here", "connect_timeout": "say it in the check", "hashed": "", "flag-1": "", "flag-2": "", "flag-3": "",
}

func (c *converter) server(b *block) {
	s := &service{at: b.at(), balance: "least-connections", interval: time.Minute}
	if !c.listeners(s, b) {
		return
	}
	protocol := "TCP"
	var servers []*block
	for _, in := range b.in {
		if in.name() == "protocol" {
			protocol = strings.ToUpper(in.arg(0))
		}
	}
	if protocol != "TCP" {
		c.note(nil, b.at(), "the virtual_server %s is left out: it is for %s, and services are for TCP", strings.Join(b.args(), " "), protocol)
		return
	}
	sorry := []backend(nil)
	for _, in := range b.in {
		switch in.name() {
		case "delay_loop":
			s.interval = c.duration(&s.notes, in, 10*time.Millisecond, time.Hour, time.Minute)
		case "lb_algo", "lvs_sched":
			to, ok := balances[in.arg(0)]
			switch {
			case !ok:
				c.note(&s.notes, in.at(), "`%s %s` is not known to this program; it became least-connections", in.name(), in.arg(0))
			case to.why != "":
				c.note(&s.notes, in.at(), "`%s %s` became %s: %s", in.name(), in.arg(0), to.policy, to.why)
			}
			s.balance = cmp.Or(to.policy, "least-connections")
		case "lb_kind", "lvs_method":
			c.note(&s.notes, in.at(), "`%s %s`: the relay ends both connections: the real servers see the address of the node, and need nothing on their loopback", in.name(), in.arg(0))
		case "persistence_timeout":
			s.balance = "source-hash"
			c.note(&s.notes, in.at(), "`persistence_timeout` became `balance: source-hash`: clients of one address get the same backend, without a time")
		case "sorry_server":
			if a, ok := c.address(&s.notes, in, in.args()); ok {
				sorry = append(sorry, backend{address: a, weight: 1, backup: true})
			}
		case "virtualhost":
			s.host = in.arg(0)
		case "real_server":
			servers = append(servers, in)
		default:
			c.unknown(&s.notes, in, serverWords)
		}
	}
	for i, r := range servers {
		c.real(s, r, i == 0)
	}
	if len(s.backends) > 0 || len(sorry) == 0 {
		s.backends = append(s.backends, sorry...)
	} else {
		for _, one := range sorry { // alone, it backs nobody up
			one.backup = false
			s.backends = append(s.backends, one)
		}
	}
	seen := make(map[string]bool)
	s.backends = slices.DeleteFunc(s.backends, func(b backend) bool {
		twice := seen[b.address]
		if twice {
			c.note(&s.notes, s.at, "%s is a real server twice; left out", b.address)
		}
		seen[b.address] = true
		return twice
	})
	s.name = c.named("service", s.listen[0], "service")
	c.services = append(c.services, s)
}

// listeners finds out where the service listens.
func (c *converter) listeners(s *service, b *block) bool {
	args := b.args()
	var places [][]string
	switch {
	case len(args) > 0 && args[0] == "fwmark":
		c.note(nil, b.at(), "the virtual_server of fwmark %s is left out: a service listens on addresses", b.arg(1))
		return false
	case len(args) > 1 && args[0] == "group":
		set := c.sets[args[1]]
		if set == nil {
			c.note(nil, b.at(), "the virtual_server of group %s is left out: there is no such virtual_server_group", args[1])
			return false
		}
		for _, in := range set.in {
			places = append(places, append([]string{in.name()}, in.args()...))
		}
	default:
		places = [][]string{args}
	}
	for _, p := range places {
		a, ok := c.address(&s.notes, b, p)
		switch {
		case !ok:
		case c.names["listen "+a]:
			c.note(&s.notes, b.at(), "%s is taken by another virtual_server; left out", a)
		default:
			c.names["listen "+a] = true
			s.listen = append(s.listen, a)
		}
	}
	if len(s.listen) == 0 {
		c.note(nil, b.at(), "the virtual_server %s is left out: it has no address to listen on", strings.Join(args, " "))
		return false
	}
	return true
}

// address understands an address and a port.
func (c *converter) address(list *[]Note, b *block, args []string) (string, bool) {
	bad := func(why string) (string, bool) {
		c.note(list, b.at(), "`%s %s`: %s; left out", b.name(), strings.Join(args, " "), why)
		return "", false
	}
	if len(args) < 2 {
		return bad("an address and a port are needed")
	}
	if len(args) > 2 {
		return bad("there are words behind the port; a line is one statement")
	}
	a, err := netip.ParseAddr(args[0])
	switch {
	case err != nil && strings.Contains(args[0], "-"):
		return bad("a range of addresses is no address; write them one by one")
	case err != nil:
		return bad("that is no IP address")
	case a.IsUnspecified() || a.IsMulticast() || a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
		return bad("that is no address to connect to")
	case len(a.Zone()) > 15 || strings.ContainsFunc(a.Zone(), func(r rune) bool { return r <= ' ' || r == '/' || r > '~' }):
		return bad("its zone is no name of an interface")
	}
	port, err := whole(args[1], 1, 65535)
	if err != nil {
		return bad("the port is no number from 1 to 65535")
	}
	return net.JoinHostPort(a.Unmap().String(), strconv.Itoa(port)), true
}

var checks = map[string]string{"TCP_CHECK": "tcp", "HTTP_GET": "http", "SSL_GET": "http", "MISC_CHECK": "command", "SMTP_CHECK": "exchange"}

// real takes a real_server; the first one says how all of them are checked.
func (c *converter) real(s *service, b *block, first bool) {
	a, ok := c.address(&s.notes, b, b.args())
	if !ok {
		return
	}
	if slices.Contains(s.listen, a) {
		c.note(&s.notes, b.at(), "the real server %s is where the service itself listens; left out", a)
		return
	}
	one := backend{address: a, weight: 1}
	var found *check
	for _, in := range b.in {
		switch name := in.name(); {
		case name == "weight":
			one.weight = c.number(&s.notes, in, 0, 65535, 1)
		case name == "uthreshold":
			one.most = c.number(&s.notes, in, 0, 1<<30, 0)
		case checks[name] != "" && found == nil:
			found = c.check(s, in)
		case strings.HasSuffix(name, "_CHECK") || strings.HasSuffix(name, "_GET"):
			if found != nil {
				c.note(&s.notes, in.at(), "a second check of one server; a service has one: left out")
				continue
			}
			c.note(&s.notes, in.at(), "`%s` became a TCP check: there is no such check for TCP services here", name)
			found = &check{at: in.at(), kind: "tcp"}
		case name == "notify_up" || name == "notify_down":
			c.note(&s.notes, in.at(), "`%s` is not carried over: events say when backends go up and down (holdfast events --follow)", name)
		case name == "lthreshold":
			c.note(&s.notes, in.at(), "`lthreshold` is not carried over: a backend at its limit gets clients again as soon as one has left")
		default:
			c.unknown(&s.notes, in, serverWords)
		}
	}
	switch {
	case len(s.backends) == 0 || first:
		s.check = found
	case !s.check.same(found):
		at := b.at()
		if found != nil {
			at = found.at
		}
		c.note(&s.notes, at, "%s is checked in another way than the server before it, and a service has one check: that of the first holds for all", a)
	}
	s.backends = append(s.backends, one)
}

// check takes one check.
func (c *converter) check(s *service, b *block) *check {
	k := &check{at: b.at(), kind: checks[b.name()], timeout: 5 * time.Second, tls: b.name() == "SSL_GET", path: "/"}
	if k.kind == "command" {
		k.timeout = 0
	}
	urls := 0
	for _, in := range b.in {
		switch in.name() {
		case "connect_timeout", "misc_timeout":
			k.timeout = c.duration(&s.notes, in, time.Millisecond, time.Hour, k.timeout)
		case "connect_port":
			k.port = c.number(&s.notes, in, 1, 65535, 0)
		case "connect_ip":
			if a, err := netip.ParseAddr(in.arg(0)); err == nil && a.Zone() == "" && a.IsValid() {
				k.address = a.String()
			} else {
				c.note(&s.notes, in.at(), "`connect_ip %s` is no IP address; left out", in.arg(0))
			}
		case "retry", "nb_get_retry", "misc_retry":
			k.fall = c.number(&s.notes, in, 0, 999, 0) + 1
		case "virtualhost":
			k.host = in.arg(0)
		case "enable_sni", "fast_recovery", "http_protocol", "misc_dynamic", "warmup", "delay_before_retry", "bindto", "bind_port", "bind_if", "fwmark", "user", "helo_name", "host":
			if in.name() == "misc_dynamic" || in.name() == "bindto" || in.name() == "fwmark" || in.name() == "user" || in.name() == "host" {
				c.note(&s.notes, in.at(), "`%s` of a check is not carried over", in.name())
			}
		case "misc_path":
			argv, err := command(in.words[1:])
			if err != nil {
				c.note(&s.notes, in.at(), "`misc_path` is not carried over: %v", err)
			}
			k.argv = argv
		case "url":
			if urls++; urls > 1 {
				c.note(&s.notes, in.at(), "a second `url`; a check asks for one: left out")
				continue
			}
			c.url(s, k, in)
		default:
			c.unknown(&s.notes, in, serverWords)
		}
	}
	switch {
	case k.kind == "command" && k.argv == nil:
		c.note(&s.notes, b.at(), "the check became a TCP check: it names no program")
		return &check{at: b.at(), kind: "tcp"}
	case k.kind == "command":
		k.timeout = cmp.Or(k.timeout, s.interval)
		c.note(&s.notes, b.at(), "MISC_CHECK became `command`: one command checks all backends; it finds each in HOLDFAST_ADDRESS")
	case k.kind == "exchange":
		c.note(&s.notes, b.at(), "SMTP_CHECK became an exchange that waits for the greeting: 220")
	case k.tls:
		c.note(&s.notes, b.at(), "SSL_GET became an HTTP check with `tls: {insecure: true}`, which believes every certificate, as keepalived does: name the server in `server_name` instead")
	}
	return k
}

// url takes what an HTTP check asks for.
func (c *converter) url(s *service, k *check, b *block) {
	for _, in := range b.in {
		switch in.name() {
		case "path":
			c.surplus(&s.notes, in, 1)
			if p := in.arg(0); strings.HasPrefix(p, "/") && !strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				k.path = p
			} else {
				c.note(&s.notes, in.at(), "`path %s` is no path; it became /", p)
			}
		case "status_code":
			if status, err := statuses(in.args()); err == nil {
				k.status = status
			} else {
				c.note(&s.notes, in.at(), "`status_code`: %v; left out", err)
			}
		case "virtualhost":
			k.host = in.arg(0)
		case "digest":
			c.note(&s.notes, in.at(), "`digest` is not carried over: a check looks at the status")
		default:
			c.unknown(&s.notes, in, nil)
		}
	}
}

// statuses are the numbers and ranges of status_code.
func statuses(args []string) (string, error) {
	for _, a := range args {
		low, high, isRange := strings.Cut(a, "-")
		if !isRange {
			high = low
		}
		from, errFrom := whole(low, 100, 599)
		to, errTo := whole(high, 100, 599)
		if errFrom != nil || errTo != nil || from > to {
			return "", fmt.Errorf("%q is no status", a)
		}
	}
	if len(args) == 0 {
		return "", fmt.Errorf("no status is named")
	}
	return strings.Join(args, ","), nil
}
