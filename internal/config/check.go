package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-net/holdfast/balance"
)

// checker looks for what is wrong between the values of a file that were
// understood one by one.
type checker struct {
	*decoder
	*Config

	listeners []listener
	moving    map[netip.Addr][]*AddressGroup // who has an address: one group for each interface
	// Which services a service's backends reach, by the number of the service.
	next map[int][]hop
}

// listener is something that the node listens on.
type listener struct {
	Address
	service int    // its number; -1 for the node's own
	what    string // service web, or the key
	at      Position
}

// hop is a backend that is a service of this node.
type hop struct {
	to   int
	path string // of the backend's address
}

// is reports where a value stands, and whether it is in the file and was
// understood.
func (k *checker) is(path string) (Position, bool) {
	at, ok := k.at[path]
	return at, ok
}

// report notes what is wrong with a value; with a default, at the mapping that
// could have it.
func (k *checker) report(path, format string, args ...any) {
	for p := path; ; p = p[:strings.LastIndexByte(p, '.')] {
		if at, ok := k.at[p]; ok {
			k.bad(at, path, format, args...)
			return
		}
		if at, ok := k.keyAt[p]; ok {
			k.bad(at, path, format, args...)
			return
		}
		if !strings.Contains(p, ".") {
			k.bad(Position{}, path, format, args...)
			return
		}
	}
}

func (k *checker) check() {
	if _, ok := k.is("node"); ok {
		k.wrong("node", checkName(k.Node))
	}
	k.checkAdmin()
	names := make(map[string]string)
	if at, ok := k.is("services"); ok && len(k.Services) == 0 && len(k.Addresses) == 0 {
		k.bad(at, "services", "there is no service; add one: name, listen and backends")
	} else if at, ok := k.is("addresses"); ok && len(k.Services) == 0 && len(k.Addresses) == 0 {
		k.bad(at, "addresses", "there is nothing to do: neither an address nor a service; add one")
	}
	k.own("admin.socket", Address{Path: k.Admin.Socket})
	k.checkMoving()
	k.next = make(map[int][]hop)
	for i := range k.Services {
		path := fmt.Sprintf("services[%d]", i)
		if _, ok := k.is(path); !ok {
			continue
		}
		k.unique(names, path, k.Services[i].Name, "service", false)
		k.checkListen(path, i)
	}
	k.checkMetrics()
	for i := range k.Services {
		path := fmt.Sprintf("services[%d]", i)
		if _, ok := k.is(path); ok {
			k.checkService(path, i)
		}
	}
	k.checkCircles()
}

// wrong notes an error for a value.
func (k *checker) wrong(path string, err error) {
	if err != nil {
		k.report(path, "%v", err)
	}
}

// own adds an address that the node itself listens on.
func (k *checker) own(path string, a Address) {
	l := listener{Address: a, service: -1, what: path}
	l.at = k.at[path]
	k.listeners = append(k.listeners, l)
}

// unique checks the name in the mapping at path, which is new in seen. A backend
// may be called what it would be called without a name.
func (k *checker) unique(seen map[string]string, path, name, what string, byAddress bool) {
	at, ok := k.is(path + ".name")
	if !ok {
		return
	}
	if err := checkName(name); err != nil && !byAddress {
		k.wrong(path+".name", err)
		return
	}
	if first, ok := seen[name]; ok {
		k.bad(at, path+".name", "there is a %s `%s` already, in line %d; give one of them another name", what, name, k.at[first+".name"].Line)
		return
	}
	seen[name] = path
}

// maxName is the longest name of a node, a service or a backend.
const maxName = 64

// checkName says what is wrong with a name. Names stand in URLs, in labels of
// metrics, and in commands.
func checkName(name string) error {
	if name == "" {
		return errors.New("the name is empty; write one")
	}
	if n := len([]rune(name)); n > maxName {
		return fmt.Errorf("the name has %d characters; it may have %d", n, maxName)
	}
	for _, c := range name {
		if !letter(c) && !digit(c) && !strings.ContainsRune("._-:[]", c) {
			return fmt.Errorf("the name %s has a %q in it; a name has letters a to z, digits and . _ - : [ ]", quote(name), c)
		}
	}
	if c := rune(name[0]); !letter(c) && !digit(c) && c != '_' && c != '[' {
		return fmt.Errorf("the name %s begins with %q, which would be misread in commands; begin it with a letter or a digit", quote(name), c)
	}
	return nil
}

func (k *checker) checkAdmin() {
	const path = "admin.socket"
	if _, ok := k.is(path); ok {
		if err := checkUnixPath(k.Admin.Socket); err != nil || !filepath.IsAbs(k.Admin.Socket) {
			if strings.HasPrefix(k.Admin.Socket, "unix:") {
				err = fmt.Errorf("write the path without unix: here: %s", printable(strings.TrimPrefix(k.Admin.Socket, "unix:")))
			}
			k.wrong(path, cmp.Or(err, relative(k.Admin.Socket)))
		}
	}
	if m := k.Admin.Mode; m&^0o777 != 0 {
		k.report("admin.mode", "%v has bits that mean nothing for a socket; write four digits that begin with 0", m)
	} else if m&0o111 != 0 {
		k.report("admin.mode", "%v has execute bits, which mean nothing for a socket; write %v", m, m&^0o111)
	} else if m&0o600 != 0o600 {
		k.report("admin.mode", "%v keeps the node's own user out; write %v", m, m|0o600)
	}
	if at, ok := k.is("admin.group"); ok && k.Admin.Group != "" {
		if strings.ContainsFunc(k.Admin.Group, func(c rune) bool { return c <= ' ' || c == ':' || c == '/' || control(c) }) {
			k.bad(at, "admin.group", "%s is no name of a group; write one as `getent group` lists it", quote(k.Admin.Group))
		}
	}
	for path, dir := range map[string]string{"directories.runtime": k.Directories.Runtime, "directories.bpf": k.Directories.BPF} {
		if _, ok := k.is(path); !ok {
			continue
		}
		switch {
		case !filepath.IsAbs(dir):
			k.wrong(path, relative(dir))
		case strings.ContainsFunc(dir, control):
			k.report(path, "a path has no control characters; leave them out")
		}
	}
}

// relative is why a path must begin with a slash.
func relative(path string) error {
	if path == "" {
		return errors.New("the path is empty; write one that begins with /")
	}
	return fmt.Errorf("%s would depend on the directory that the node is started in; write a path that begins with /", quote(path))
}

func (k *checker) checkMetrics() {
	const path = "metrics.listen"
	a := k.Metrics.Listen
	at, ok := k.is(path)
	switch {
	case !ok || !a.IsValid():
		return
	case a.IsUnix():
		k.bad(at, path, "metrics are on the admin socket in any case; for TCP write ADDRESS:PORT, or leave this out")
		return
	case !k.listenable(path, a):
		return
	}
	if g, ok := k.moves(a.Addr); ok {
		k.bad(at, path, "%v moves: it is an address of group %s; write one that stays with this node", a.Addr, printable(g.Name))
		return
	}
	for _, l := range k.listeners {
		if what := conflict(l, a); what != "" {
			k.bad(at, path, "%v %s; choose another port", a, what)
			return
		}
	}
}

// listenable checks an address by itself.
func (k *checker) listenable(path string, a Address) bool {
	switch {
	case a.IsUnix() && !filepath.IsAbs(a.Path):
		k.wrong(path, relative(a.Path))
	case a.IsUnix():
		return true
	case a.Port == 0:
		k.report(path, "port 0 would be another one with each start; write a number from 1 to 65535")
	case a.Addr.IsMulticast() || a.Addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		k.report(path, "%v is no address of one machine; TCP needs one", a.Addr)
	case a.Addr.Is6() && a.Addr.IsLinkLocalUnicast() && a.Addr.Zone() == "":
		k.report(path, "%v is a link-local address; say on which interface: \"[%v%%eth0]:%d\"", a.Addr, a.Addr, a.Port)
	default:
		return true
	}
	return false
}

// conflict says why l and a cannot both be listened on; "" where they can.
func conflict(l listener, a Address) string {
	same := l.same(a)
	if !same && !l.covers(a) && !a.covers(l.Address) {
		return ""
	}
	where := l.what
	if l.at.Line > 0 {
		where = fmt.Sprintf("%s (line %d)", where, l.at.Line)
	}
	if same {
		return "is taken by " + where
	}
	return fmt.Sprintf("overlaps with %v of %s: one of them is every address of the machine", l.Address, where)
}

// listenPath is where the listener of that number stands; a single one may stand
// for a list.
func (k *checker) listenPath(path string, i int) string {
	if _, ok := k.is(fmt.Sprintf("%s.listen[%d]", path, i)); ok || i > 0 {
		return fmt.Sprintf("%s.listen[%d]", path, i)
	}
	if at, ok := k.keyAt[path+".listen[0]"]; ok && at.Line > 0 {
		return path + ".listen[0]"
	}
	return path + ".listen"
}

func (k *checker) checkListen(path string, i int) {
	s := &k.Services[i]
	if at, ok := k.is(path + ".listen"); ok && len(s.Listen) == 0 {
		k.bad(at, path+".listen", "the list is empty; say where clients connect")
	}
	for j, a := range s.Listen {
		p := k.listenPath(path, j)
		at, ok := k.is(p)
		if !ok || !a.IsValid() || !k.listenable(p, a) {
			continue
		}
		clash := ""
		for _, l := range k.listeners {
			if clash = conflict(l, a); clash != "" {
				k.bad(at, p, "%v %s; leave one of them out", a, clash)
				break
			}
		}
		if clash == "" {
			what := "this service"
			if s.Name != "" {
				what = "service " + s.Name
			}
			k.listeners = append(k.listeners, listener{Address: a, service: i, what: what, at: at})
		}
	}
}

func (k *checker) checkService(path string, i int) {
	s := &k.Services[i]
	k.checkAllow(path, s)
	k.checkDrain(path+".drain", s.Drain)
	k.checkBackends(path, i)
	k.checkHealth(path+".health", s)
}

func (k *checker) checkDrain(path string, d Drain) {
	if d.Timeout > 0 && d.Idle >= d.Timeout {
		k.report(path+".idle", "%v never acts before `timeout`, which is %v; make it shorter, or leave it out", d.Idle, d.Timeout)
	}
}

func (k *checker) checkAllow(path string, s *Service) {
	if len(s.Allow) == 0 {
		return
	}
	has4, has6 := false, false
	first := make(map[netip.Prefix]int, len(s.Allow))
	lengths := make(map[int]bool)
	for i, p := range s.Allow {
		if _, ok := first[p]; !ok && p.IsValid() {
			first[p], lengths[p.Bits()] = i, true
		}
	}
	for i, p := range s.Allow {
		at, ok := k.is(fmt.Sprintf("%s.allow[%d]", path, i))
		if !ok {
			return // what is allowed is not known
		}
		has4, has6 = has4 || p.Addr().Is4(), has6 || p.Addr().Is6()
		// The larger network may come later; of two equal ones the later is too many.
		within := i
		for bits := range p.Bits() {
			if !lengths[bits] {
				continue
			}
			if j, ok := first[netip.PrefixFrom(p.Addr(), bits).Masked()]; ok && (within == i || j < within) {
				within = j
			}
		}
		switch j := first[p]; {
		case j < i && (within == i || j < within):
			k.bad(at, fmt.Sprintf("%s.allow[%d]", path, i), "%v is here twice; leave it out", p)
		case within != i:
			k.bad(at, fmt.Sprintf("%s.allow[%d]", path, i), "%v is in %v; leave it out", p, s.Allow[within])
		}
	}
	unix := 0
	for i, a := range s.Listen {
		p := k.listenPath(path, i)
		if _, ok := k.is(p); !ok {
			return
		}
		switch {
		case a.IsUnix():
			unix++
		case a.Addr.Is4() && !has4:
			k.report(p, "nobody could connect to %v: `allow` has IPv6 networks only; add an IPv4 network, or leave this address out", a)
		case a.Addr.Is6() && !has6:
			k.report(p, "nobody could connect to %v: `allow` has IPv4 networks only; add an IPv6 network, or leave this address out", a)
		}
	}
	if unix > 0 && unix == len(s.Listen) {
		k.report(path+".allow", "the service listens on a unix socket, whose clients have no address; leave `allow` out")
	}
}

func (k *checker) checkBackends(path string, i int) {
	s := &k.Services[i]
	names, addresses := make(map[string]string), make(map[Address]string)
	backups, usable := 0, true
	if len(s.Backends) > balance.MaxBackends {
		k.report(fmt.Sprintf("%s.backends[%d]", path, balance.MaxBackends), "a service has at most %d backends; make two services of it", balance.MaxBackends)
		return
	}
	for j := range s.Backends {
		b := &s.Backends[j]
		p := fmt.Sprintf("%s.backends[%d]", path, j)
		if b.Backup {
			backups++
		}
		k.unique(names, p, b.Name, "backend", b.Name == b.Address.String())
		at, ok := k.is(p + ".address")
		if !ok {
			usable = false
			continue
		}
		if !k.connectable(p+".address", b.Address) {
			continue
		}
		a := b.Address
		if a.IsUnix() {
			a.Path = filepath.Clean(a.Path)
		}
		a.Host = strings.ToLower(strings.TrimSuffix(a.Host, "."))
		if first, ok := addresses[a]; ok {
			k.bad(at, p+".address", "%v is a backend already, in line %d; leave one out, and give the other the weight of both", b.Address, k.at[first+".address"].Line)
			continue
		}
		addresses[a] = p
		if _, ok := k.is(p + ".name"); !ok {
			if first, ok := names[a.String()]; ok {
				k.bad(at, p, "without a name this backend would be `%v`, as the one in line %d is called; give one of them another name", a, k.at[first+".name"].Line)
			}
		}
		k.reaches(p+".address", i, b.Address)
	}
	if _, ok := k.is(path + ".backends"); ok && usable && backups > 0 && backups == len(s.Backends) {
		k.report(path+".backends[0].backup", "every backend is a backup, and there is nothing to back up; leave `backup` out of at least one")
	}
}

// connectable checks a backend's address by itself.
func (k *checker) connectable(path string, a Address) bool {
	switch {
	case a.IsUnix() && !filepath.IsAbs(a.Path):
		k.wrong(path, relative(a.Path))
	case a.Addr.IsUnspecified() && a.Addr.Is4():
		k.report(path, "0.0.0.0 is every address of a machine, and none to connect to; write 127.0.0.1:%d for this machine", a.Port)
	case a.Addr.IsUnspecified():
		k.report(path, "[::] is every address of a machine, and none to connect to; write \"[::1]:%d\" for this machine", a.Port)
	case a.IsUnix() || a.Host != "":
		return true
	default:
		return k.listenable(path, a)
	}
	return false
}

// reaches notes which services a backend of service i is.
func (k *checker) reaches(path string, i int, a Address) {
	for _, l := range k.listeners {
		switch {
		case !a.reaches(l.Address):
		case l.service == i:
			k.report(path, "%v is where the service itself listens, in line %d; it would be its own backend: write where the real server is", a, l.at.Line)
			return
		case l.service < 0:
			k.report(path, "%v is %s, which is no backend; write where the real server is", a, l.what)
			return
		default:
			k.next[i] = append(k.next[i], hop{l.service, path})
			return
		}
	}
}

// checkCircles looks for services whose clients would go round for ever.
func (k *checker) checkCircles() {
	const fresh, open, done = 0, 1, 2
	state := make(map[int]int)
	var trail []int
	var visit func(i int)
	visit = func(i int) {
		state[i] = open
		trail = append(trail, i)
		for _, h := range k.next[i] {
			switch state[h.to] {
			case fresh:
				visit(h.to)
			case open:
				names, on := []string{}, false
				for _, t := range trail {
					if on = on || t == h.to; on {
						names = append(names, k.Services[t].Name)
					}
				}
				names = append(names, k.Services[h.to].Name)
				k.report(h.path, "a client would go round for ever: %s; write where the real server is", strings.Join(names, " -> "))
			}
		}
		trail = trail[:len(trail)-1]
		state[i] = done
	}
	for i := range k.Services {
		if state[i] == fresh {
			visit(i)
		}
	}
}

// onlyWithCheck is what none: {} leaves without a meaning.
var onlyWithCheck = []string{"interval", "timeout", "fall", "rise"}

func (k *checker) checkHealth(path string, s *Service) {
	h := &s.Health
	var kinds []string
	for _, kind := range []string{"tcp", "http", "exchange", "command", "none"} {
		if _, ok := k.keyAt[path+"."+kind]; ok {
			kinds = append(kinds, kind)
		}
	}
	slices.SortStableFunc(kinds, func(a, b string) int { return k.keyAt[path+"."+a].compare(k.keyAt[path+"."+b]) })
	if len(kinds) > 1 {
		for _, kind := range kinds[1:] {
			k.bad(k.keyAt[path+"."+kind], path+"."+kind, "a second kind of check, besides `%s`; a service has one: leave the other out", kinds[0])
		}
		return
	}
	if h.None != nil {
		for _, key := range onlyWithCheck {
			if here, ok := k.keyAt[path+"."+key]; ok {
				k.bad(here, path+"."+key, "`%s` means nothing with `none`, which never checks; leave it out", key)
			}
		}
	}
	switch {
	case h.HTTP != nil:
		k.checkHTTP(path+".http", h.HTTP)
	case h.Exchange != nil:
		k.checkExchange(path+".exchange", h.Exchange)
	case h.Command != nil:
		k.checkCommand(path+".command", h.Command)
	}
	if t := h.Target(); t != nil {
		k.checkTarget(path+"."+h.Kind(), t, s)
	}
}

func (k *checker) checkHTTP(path string, h *HTTPCheck) {
	blank := func(c rune) bool { return c <= ' ' || c == 0x7f }
	if _, ok := k.is(path + ".path"); ok {
		switch {
		case strings.HasPrefix(h.Path, "http://") || strings.HasPrefix(h.Path, "https://"):
			k.report(path+".path", "%s is a whole URL; write its path only, as /healthz", quote(h.Path))
		case !strings.HasPrefix(h.Path, "/"):
			k.report(path+".path", "%s does not begin with /; write %s", quote(h.Path), printable("/"+h.Path))
		case strings.ContainsFunc(h.Path, blank):
			k.report(path+".path", "%s has a space or a control character in it; write a space as %%20", quote(h.Path))
		}
	}
	if _, ok := k.is(path + ".host"); ok && (h.Host == "" || strings.ContainsFunc(h.Host, blank)) {
		k.report(path+".host", "%s cannot be a Host header; write a host name, or leave it out", quote(h.Host))
	}
	if _, ok := k.is(path + ".status"); ok {
		k.wrong(path+".status", checkStatus(h.Status))
	}
}

// checkStatus understands 200-299,404.
func checkStatus(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, errFrom := number(low)
		to, errTo := number(high)
		switch {
		case len(part) == 3 && strings.HasSuffix(strings.ToLower(part), "xx") && part[0] >= '1' && part[0] <= '5':
			return fmt.Errorf("%s is not how statuses are written here; write %c00-%c99", quote(part), part[0], part[0])
		case errFrom != nil || errTo != nil:
			return fmt.Errorf("%s is neither a status nor a range of them; write them as 200-299,404", quote(part))
		case from < 100 || to < 100 || to > 599 || from > 599:
			return fmt.Errorf("%s goes beyond what a status may be; they are 100 to 599", quote(part))
		case from > to:
			return fmt.Errorf("%s is the wrong way round; write %d-%d", quote(part), to, from)
		}
	}
	return nil
}

// maxAnswer is how much of an answer a check reads.
const maxAnswer = 64 << 10

func (k *checker) checkExchange(path string, e *ExchangeCheck) {
	if _, ok := k.is(path + ".expect"); !ok {
		return
	}
	switch {
	case e.Expect == "":
		k.report(path+".expect", "it is empty, and occurs in every answer; say what a healthy backend answers, or use `tcp: {}`")
	case len(e.Expect) > maxAnswer:
		k.report(path+".expect", "it has %d bytes, and a check reads %d of an answer; write less", len(e.Expect), maxAnswer)
	}
}

func (k *checker) checkCommand(path string, c *CommandCheck) {
	if _, ok := k.is(path + ".argv"); ok {
		if len(c.Argv) == 0 {
			k.report(path+".argv", "the list is empty; say which program to run")
		}
		k.checkArgv(path+".argv", c.Argv)
	}
	if _, ok := k.is(path + ".user"); ok {
		switch {
		case c.User == "":
			k.report(path+".user", "it is empty; name a user, or leave it out for the node's own")
		case strings.ContainsFunc(c.User, func(r rune) bool { return r <= ' ' || r == ':' || r == '/' || control(r) }):
			k.report(path+".user", "%s is no name of a user; write one as `getent passwd` lists it", quote(c.User))
		}
	}
}

// checkArgv checks a program and its arguments.
func (k *checker) checkArgv(path string, argv []string) {
	switch first := path + "[0]"; {
	case len(argv) == 0 || k.at[first] == Position{}:
	case argv[0] == "":
		k.report(first, "the program's name is empty; say which program to run")
	case strings.Contains(argv[0], "/") && !filepath.IsAbs(argv[0]):
		k.wrong(first, relative(argv[0]))
	case len(argv) == 1 && strings.Contains(argv[0], " "):
		k.report(first, "%s has spaces, and no shell takes it apart; write each argument by itself: [%s]", quote(argv[0]), strings.Join(strings.Fields(printable(argv[0])), ", "))
	}
	for i, a := range argv {
		if strings.ContainsRune(a, 0) {
			k.report(fmt.Sprintf("%s[%d]", path, i), "an argument cannot have a NUL in it; leave it out")
		}
	}
}

func (k *checker) checkTarget(path string, t *Target, s *Service) {
	host, isUnix := t.Address, strings.HasPrefix(t.Address, "unix:")
	if _, ok := k.is(path + ".address"); ok {
		if !k.checkTargetAddress(path+".address", t) {
			return
		}
	}
	if isUnix && t.Port != 0 {
		k.report(path+".port", "a unix socket has no port; leave `port` or `address` out")
		return
	}
	// What is wrong with the first backend of a kind is wrong with all.
	for _, b := range s.Backends {
		unixBackend := b.Address.IsUnix() && host == "" || isUnix
		switch {
		case !b.Address.IsValid():
		case b.Address.IsUnix() && host == "" && t.Port != 0:
			k.report(path+".port", "%v is a unix socket, which has no port; say in `address` which host to check", b.Address)
			return
		case b.Address.IsUnix() && host != "" && !isUnix && t.Port == 0:
			k.report(path+".address", "%v is a unix socket, and has no port to check at %s; add `port`", b.Address, host)
			return
		case unixBackend && t.TLS != nil && t.TLS.ServerName == "" && !t.TLS.Insecure:
			what := b.Address.String()
			if isUnix {
				what = t.Address
			}
			k.report(path+".tls", "%s is a unix socket, which has no host name that could be verified; add `server_name: NAME` or `insecure: true`", what)
			return
		}
	}
	if t.TLS != nil {
		k.checkTLS(path+".tls", t.TLS)
	}
}

func (k *checker) checkTargetAddress(path string, t *Target) bool {
	host := t.Address
	if p, ok := strings.CutPrefix(host, "unix:"); ok {
		err := checkUnixPath(p)
		if err == nil && !filepath.IsAbs(p) {
			err = relative(p)
		}
		k.wrong(path, err)
		return err == nil
	}
	if _, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err == nil {
		return true
	}
	switch a, err := ParseBackendAddress(host); {
	case host == "":
		k.report(path, "it is empty; write an IP address, a host name or unix:/path, or leave it out for the backend's")
	case strings.HasPrefix(host, "/"):
		k.report(path, "%s is a path; write unix:%s for a unix socket", quote(host), printable(host))
	case err == nil:
		k.report(path, "%s has a port; write it by itself, as `port: %d`", quote(host), a.Port)
	case numeric(host):
		k.report(path, "%s is no IP address; an IPv4 address has four numbers from 0 to 255", quote(host))
	default:
		err := checkHost(host)
		k.wrong(path, err)
		return err == nil
	}
	return false
}

func (k *checker) checkTLS(path string, t *TLS) {
	if _, ok := k.is(path + ".server_name"); !ok {
		return
	}
	switch _, err := netip.ParseAddr(t.ServerName); {
	case t.ServerName == "":
		k.report(path+".server_name", "it is empty; write the name that the certificate must have, or leave it out")
	case t.Insecure:
		k.report(path+".server_name", "it means nothing with `insecure`, which takes any certificate; leave one of them out")
	case err != nil:
		k.wrong(path+".server_name", checkHost(t.ServerName))
	}
}
