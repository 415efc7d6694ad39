//go:build linux

package health

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Kind is what a check does. Its text form is the word the configuration uses.
type Kind uint8

const (
	// TCP succeeds when a connection is established (and, with TLS, its
	// handshake done): "tcp". It is the zero value.
	TCP Kind = iota
	// HTTP succeeds when a GET is answered with one of the wanted statuses: "http".
	HTTP
	// Exchange succeeds when, after something was sent, the wanted bytes come:
	// "exchange".
	Exchange
	// Command succeeds when a program ends with status 0: "command".
	Command
	// None never checks; the backend stays Unknown, which counts as up, and what
	// is reported about it is ignored, as nothing could bring it back: "none".
	None
)

var kindNames = [...]string{"tcp", "http", "exchange", "command", "none"}

// ParseKind returns the kind of that name.
func ParseKind(s string) (Kind, error) {
	for i, name := range kindNames {
		if s == name {
			return Kind(i), nil
		}
	}
	return 0, fmt.Errorf("health: unknown kind of check %q, want tcp, http, exchange, command or none", s)
}

// String returns the kind's name.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) {
	if int(k) >= len(kindNames) {
		return nil, fmt.Errorf("health: unknown kind of check %d", uint8(k))
	}
	return []byte(kindNames[k]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Kind) UnmarshalText(text []byte) error {
	parsed, err := ParseKind(string(text))
	if err != nil {
		return err
	}
	*k = parsed
	return nil
}

// Defaults and bounds of a Check.
const (
	DefaultInterval = time.Second
	DefaultTimeout  = time.Second
	DefaultFall     = 3
	DefaultRise     = 2

	MinDuration = time.Millisecond // of Interval and Timeout
	MaxDuration = time.Hour        // of Interval and Timeout
	MaxRow      = 1000             // of Fall and Rise
)

// Check says how a backend is checked. It is plain data; the zero value is a TCP
// check every second. A setting that its Kind would ignore is an error.
type Check struct {
	Kind Kind

	HTTP     HTTPCheck     // for HTTP
	Exchange ExchangeCheck // for Exchange; required there
	Command  CommandCheck  // for Command; required there

	// Address is checked instead of the backend's: an IP address or host name
	// without a port, or unix:PATH. A name is resolved in each check, within its
	// timeout. Empty: the backend's. For TCP, HTTP and Exchange.
	Address string
	// Port is checked instead of the backend's, 1 to 65535; 0: the backend's.
	// For TCP, HTTP and Exchange.
	Port int
	// TLS is spoken on the connection. For TCP, HTTP and Exchange.
	TLS TLS

	// Interval is from the start of one check to the start of the next, at most
	// (see the package documentation). 1 ms to 1 h; 0: 1 s.
	Interval time.Duration
	// Timeout bounds one check as a whole. 1 ms to 1 h; 0: 1 s.
	Timeout time.Duration
	// Fall is how many failures in a row take an up backend down. 1 to 1000; 0: 3.
	Fall int
	// Rise is how many successes in a row bring a down backend up. 1 to 1000; 0: 2.
	Rise int
}

// HTTPCheck is the request of an HTTP check and what to make of the answer. The
// request is a GET by HTTP/1.1; redirects are not followed.
type HTTPCheck struct {
	// Path with its query; empty: "/".
	Path string
	// Host is the Host header; empty: the address that is checked.
	Host string
	// Status lists the statuses that are well: numbers and ranges with commas
	// between them, such as "200-299,404"; empty: "200-399".
	Status string
}

// ExchangeCheck is one exchange of bytes.
type ExchangeCheck struct {
	// Send is sent first; empty for a server that speaks first.
	Send string
	// Expect must occur in the first 64 KiB that come back; not empty.
	Expect string
}

// CommandCheck is the program of a Command check. It runs in a process group of its
// own, which is killed as a whole on timeout, and also when the program has ended
// and left something behind. Its environment is PATH, and HOLDFAST_BACKEND and
// HOLDFAST_ADDRESS: the backend's name and address. What it prints is quoted in
// the cause when it fails.
type CommandCheck struct {
	// Argv is the program and its arguments; no shell. A program without a slash
	// is looked up in PATH once, by New.
	Argv []string
	// User, a name or number, runs it, with that user's groups; empty: who runs
	// this process. Another user needs CAP_SETUID and CAP_SETGID.
	User string
}

// TLS says whether and how a check speaks TLS. The server's certificate is verified
// against the system's roots.
type TLS struct {
	// Enabled turns TLS on.
	Enabled bool
	// ServerName is asked for (SNI) and verified; empty: the host that is
	// checked. A unix socket has none, so it is required there unless Insecure.
	ServerName string
	// Insecure takes any certificate.
	Insecure bool
}

// withDefaults returns the check with its zero values replaced.
func (c Check) withDefaults() Check {
	c.Interval = cmp.Or(c.Interval, DefaultInterval)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.Fall = cmp.Or(c.Fall, DefaultFall)
	c.Rise = cmp.Or(c.Rise, DefaultRise)
	if c.Kind == HTTP {
		c.HTTP.Path = cmp.Or(c.HTTP.Path, "/")
		c.HTTP.Status = cmp.Or(c.HTTP.Status, "200-399")
	}
	return c
}

// Validate reports what is wrong with the check for a backend at that address
// (see Options.Address); the error joins all of it, each naming its field. It
// does not look at the host: whether a program or user exists is for New.
func (c Check) Validate(backend string) error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("health: "+field+" "+format, args...))
	}
	if int(c.Kind) >= len(kindNames) {
		bad("Kind", "is %d, want one of the kinds of this package", uint8(c.Kind))
		return errors.Join(errs...)
	}
	d := c.withDefaults()
	duration := func(field string, v time.Duration) {
		if v < MinDuration || v > MaxDuration {
			bad(field, "is %v, want %v to %v", v, MinDuration, MaxDuration)
		}
	}
	duration("Interval", d.Interval)
	duration("Timeout", d.Timeout)
	row := func(field string, v int) {
		if v < 1 || v > MaxRow {
			bad(field, "is %d, want 1 to %d", v, MaxRow)
		}
	}
	row("Fall", d.Fall)
	row("Rise", d.Rise)

	ignored := func(field string, isSet bool) {
		if isSet {
			bad(field, "is set, but a check of kind %v does not use it", c.Kind)
		}
	}
	ignored("HTTP", c.Kind != HTTP && c.HTTP != HTTPCheck{})
	ignored("Exchange", c.Kind != Exchange && c.Exchange != ExchangeCheck{})
	ignored("Command", c.Kind != Command && (len(c.Command.Argv) > 0 || c.Command.User != ""))
	connects := c.Kind == TCP || c.Kind == HTTP || c.Kind == Exchange
	ignored("Address", !connects && c.Address != "")
	ignored("Port", !connects && c.Port != 0)
	ignored("TLS", !connects && c.TLS != TLS{})

	switch c.Kind {
	case HTTP:
		if p := d.HTTP.Path; p[0] != '/' || strings.ContainsFunc(p, notInRequest) {
			bad("HTTP.Path", "is %q, want a path that begins with / and has no space or control character", p)
		}
		if strings.ContainsFunc(c.HTTP.Host, notInRequest) {
			bad("HTTP.Host", "is %q, want no space or control character", c.HTTP.Host)
		}
		if _, err := parseStatuses(d.HTTP.Status); err != nil {
			bad("HTTP.Status", "%w", err)
		}
	case Exchange:
		if c.Exchange.Expect == "" {
			bad("Exchange.Expect", "is empty: say what the backend answers, or use a tcp check")
		} else if len(c.Exchange.Expect) > maxAnswer {
			bad("Exchange.Expect", "has %d bytes, want at most %d", len(c.Exchange.Expect), maxAnswer)
		}
	case Command:
		if len(c.Command.Argv) == 0 || c.Command.Argv[0] == "" {
			bad("Command.Argv", "is empty, want a program")
		}
	case TCP, None:
	}
	if !c.TLS.Enabled && (c.TLS != TLS{}) {
		bad("TLS", "has settings but is not Enabled")
	}
	if t, err := c.target(backend); err != nil {
		errs = append(errs, err)
	} else if t.network == "unix" && c.TLS.Enabled && c.TLS.ServerName == "" && !c.TLS.Insecure {
		bad("TLS.ServerName", "is empty, but %s has no host name that could be verified", t)
	}
	return errors.Join(errs...)
}

func notInRequest(r rune) bool { return r <= ' ' || r == 0x7f }

// target is where a check connects.
type target struct {
	network string // tcp or unix
	address string // host:port or path
	host    string // without port; empty for unix
}

func (t target) String() string {
	if t.network == "unix" {
		return "unix:" + t.address
	}
	return t.address
}

// target works out where to connect for a backend at that address.
func (c Check) target(backend string) (target, error) {
	var t target
	var port string
	if path, ok := strings.CutPrefix(backend, "unix:"); ok {
		if path == "" {
			return t, errors.New("health: Address unix: has no path")
		}
		t = target{network: "unix", address: path}
	} else {
		host, p, err := net.SplitHostPort(backend)
		if err != nil {
			return t, fmt.Errorf("health: Address %q is not HOST:PORT, [IPV6]:PORT or unix:PATH: %w", backend, err)
		}
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return t, fmt.Errorf("health: Address %q has the port %q, want 1 to 65535", backend, p)
		}
		t, port = target{network: "tcp", host: host}, p
	}
	if path, ok := strings.CutPrefix(c.Address, "unix:"); ok {
		if path == "" || c.Port != 0 {
			return t, fmt.Errorf("health: Check.Address %q: want a path, and no Port with it", c.Address)
		}
		return target{network: "unix", address: path}, nil
	}
	if c.Address != "" {
		t = target{network: "tcp", host: strings.Trim(c.Address, "[]")}
		if _, err := netip.ParseAddr(t.host); err != nil && strings.Contains(t.host, ":") {
			return t, fmt.Errorf("health: Check.Address %q: want a host without a port; the port is Check.Port", c.Address)
		}
	}
	if c.Port != 0 {
		if c.Port < 1 || c.Port > 65535 {
			return t, fmt.Errorf("health: Check.Port is %d, want 1 to 65535, or 0 for the backend's", c.Port)
		}
		if t.network == "unix" {
			return t, fmt.Errorf("health: Check.Port is %d, but %s is a unix socket; say which host in Check.Address", c.Port, backend)
		}
		port = strconv.Itoa(c.Port)
	}
	if t.network == "tcp" {
		switch {
		case t.host == "":
			return t, fmt.Errorf("health: Address %q names no host to check", backend)
		case port == "":
			return t, fmt.Errorf("health: Check.Port is 0, but %s has no port to check at %s", backend, c.Address)
		}
		t.address = net.JoinHostPort(t.host, port)
	}
	return t, nil
}

type statusRange struct{ from, to int }

func parseStatuses(s string) ([]statusRange, error) {
	var ranges []statusRange
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		from, errFrom := strconv.Atoi(low)
		to, errTo := strconv.Atoi(high)
		if errFrom != nil || errTo != nil || from < 100 || to > 599 || from > to {
			return nil, fmt.Errorf("is %q, want statuses from 100 to 599 such as 200-299,404", s)
		}
		ranges = append(ranges, statusRange{from, to})
	}
	return ranges, nil
}
