package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/balance"
	"github.com/holdfast-net/holdfast/internal/daemon"
	"github.com/holdfast-net/holdfast/internal/journal"
	"github.com/holdfast-net/holdfast/relay"
)

// relayFlags are what the relay command was given. The flags' names are the
// configuration's words.
type relayFlags struct {
	listen          []string
	name            string
	balance         string
	onBackendLost   string
	connectTimeout  time.Duration
	idleTimeout     time.Duration
	deadPeerTimeout time.Duration
	drainTimeout    time.Duration
	drainIdle       time.Duration
	allow           []string
	check           checkFlags
	logLevel        string
	logFormat       string
	events          string
	loops           int
}

func newRelay(s Streams) *cobra.Command {
	var f relayFlags
	cmd := &cobra.Command{
		Use:   "relay LISTEN BACKEND...",
		Short: "Run one service, without a file and without privileges",
		Long: `Run one service: accept clients on LISTEN and carry each connection to one of
the backends, until a signal says to stop.

LISTEN is 127.0.0.1:6380, [::1]:80, :8080 (that port on every address of both
families) or unix:/run/app.sock. More of them are given by --listen.

BACKEND is ADDRESS:PORT or unix:/path, and may go on with settings:
  10.0.0.21:80,name=web1,weight=50,max_connections=200,backup
A weight of 0 drains a backend; a backup gets clients only when no other backend
is up. A host name is looked up once, at the start, and its first address taken;
the log says which.

A connect that is refused or times out goes to another backend at once. When a
backend is lost, both ends of its connections are told by a reset (the policy
--on-backend-lost drain leaves them alone instead).

SIGTERM, SIGINT (Ctrl-C) or SIGHUP stops the service. New clients are refused at once.
With --drain-timeout or --drain-idle, connections may then end by themselves
within those bounds. What is left, or everything where neither was given, is
told by a reset. A second signal tells everybody at once.`,
		Example: `  # a relay in front of a redis-server
  holdfast relay 127.0.0.1:6380 127.0.0.1:6379

  # two web servers and a spare one, checked by HTTP
  holdfast relay :8080 10.0.0.21:80 10.0.0.22:80 10.0.0.23:80,backup \
      --check http --check-path /healthz

  # IPv4, IPv6 and a unix socket in front of PostgreSQL on a unix socket
  holdfast relay 127.0.0.1:5433 unix:/run/postgresql/.s.PGSQL.5432 \
      --listen '[::1]:5433' --listen unix:/tmp/.s.PGSQL.5433

  # a quick check, long-lived connections, one JSON line for each that ends
  holdfast relay :1883 10.0.0.31:1883 10.0.0.32:1883 --check-interval 100ms \
      --check-timeout 100ms --check-fall 2 --dead-peer-timeout 30s --events -`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usage(cmd, errors.New("LISTEN and BACKEND are missing: where clients connect, and who serves them"))
			case len(args) == 1:
				return usage(cmd, fmt.Errorf("BACKEND is missing: who serves the clients that connect to %s", args[0]))
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			run, err := f.parse(cmd, args)
			if err != nil {
				return usage(cmd, err)
			}
			return run.run(cmd.Context(), s)
		},
	}
	f.register(cmd)
	return cmd
}

func (f *relayFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringArrayVar(&f.listen, "listen", nil, "one more `LISTEN` address; may be repeated")
	flags.StringVar(&f.name, "name", "", "the service's `name` in logs and events (default: the first LISTEN)")
	flags.StringVar(&f.balance, "balance", "least-connections", "how a backend is chosen: least-connections, round-robin or source-hash")
	flags.StringVar(&f.onBackendLost, "on-backend-lost", "reset", "what becomes of the connections of a lost backend: reset or drain")
	flags.DurationVar(&f.connectTimeout, "connect-timeout", relay.DefaultConnectTimeout, "how long to try one backend before the next")
	flags.DurationVar(&f.idleTimeout, "idle-timeout", 0, "reset a connection on which nothing moved for this long; 0 is never")
	flags.DurationVar(&f.deadPeerTimeout, "dead-peer-timeout", relay.DefaultDeadPeerTimeout, "how long a peer's host may be silent; at least 7s, 0 is for ever")
	flags.DurationVar(&f.drainTimeout, "drain-timeout", 0, "end what is left of a draining backend, or after a signal, after this long; 0 is no bound")
	flags.DurationVar(&f.drainIdle, "drain-idle", 0, "end a draining connection on which nothing moved for this long; 0 is no bound")
	flags.StringArrayVar(&f.allow, "allow", nil, "a `network` that clients may come from, as 10.0.0.0/8; may be repeated (default: all)")
	f.check.register(cmd)
	flags.StringVar(&f.events, "events", "", "write a JSON line for each ended connection and each change of a backend to this `file`; - is standard output")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error; debug logs every connection")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
	flags.IntVar(&f.loops, "loops", 0, "event loops; each uses at most one processor (default: one for each)")

	for name, values := range map[string][]string{
		"balance":         {"least-connections", "round-robin", "source-hash"},
		"on-backend-lost": {"reset", "drain"},
		"log-level":       {"debug", "info", "warn", "error"},
		"log-format":      {"text", "json"},
		"check":           checkKinds,
	} {
		// It fails only for a flag that does not exist, which a test would see.
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

// A relayRun is a relay command that was understood.
type relayRun struct {
	service  daemon.ServiceOptions
	backends []backendArg
	loops    int
	events   string
	level    slog.Level
	json     bool
}

// parse understands the whole command line, and reports everything that is
// wrong with it, one line each.
func (f *relayFlags) parse(cmd *cobra.Command, args []string) (*relayRun, error) {
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	flagErr := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", name, err))
		}
	}

	run := &relayRun{loops: f.loops, events: f.events, json: f.logFormat == "json"}
	o := relay.ServiceOptions{Name: f.name}

	ipv6 := hasIPv6()
	seen := make(map[relay.Address]bool)
	for _, s := range append(args[:1:1], f.listen...) {
		addrs, err := parseListen(s, ipv6)
		note(err)
		for _, a := range addrs {
			if seen[a] && (a.IsUnix() || a.AddrPort().Port() != 0) {
				note(fmt.Errorf("LISTEN %s is given twice", a))
				continue
			}
			if b, ok := overlap(a, o.Listen); ok {
				note(fmt.Errorf("LISTEN %s and LISTEN %s overlap: leave one out", b, a))
			}
			seen[a] = true
			o.Listen = append(o.Listen, a)
		}
	}
	names := make(map[string]bool)
	for _, s := range args[1:] {
		b, err := parseBackend(s)
		if err != nil {
			note(err)
			continue
		}
		if names[b.Name] {
			note(fmt.Errorf("BACKEND %q: there are two backends named %s; give one another name by ,name=", s, b.Name))
		}
		names[b.Name] = true
		if seen[b.Address] && b.Address.IsValid() {
			note(fmt.Errorf("BACKEND %q is also a LISTEN address: the service would be its own backend", s))
		}
		run.backends = append(run.backends, b)
	}

	var err error
	if o.Balance, err = balance.ParsePolicy(f.balance); err != nil {
		flagErr("balance", fmt.Errorf("%q is none of least-connections, round-robin and source-hash", f.balance))
	}
	o.OnBackendLost, err = relay.ParseLostPolicy(f.onBackendLost)
	flagErr("on-backend-lost", err)
	if f.connectTimeout < time.Millisecond {
		flagErr("connect-timeout", fmt.Errorf("%v is less than 1ms", f.connectTimeout))
	}
	o.ConnectTimeout = f.connectTimeout
	notNegative := func(name string, d time.Duration) time.Duration {
		if d < 0 {
			flagErr(name, fmt.Errorf("%v is negative", d))
		}
		return d
	}
	o.IdleTimeout = notNegative("idle-timeout", f.idleTimeout)
	o.DeadPeerTimeout = notNegative("dead-peer-timeout", f.deadPeerTimeout)
	switch {
	case o.DeadPeerTimeout == 0:
		o.DeadPeerTimeout = -1 // none
	case o.DeadPeerTimeout > 0 && o.DeadPeerTimeout < relay.MinDeadPeerTimeout:
		flagErr("dead-peer-timeout", fmt.Errorf("%v is less than %v, in which six probes fit; 0 is for ever", f.deadPeerTimeout, relay.MinDeadPeerTimeout))
	}
	o.Drain.Timeout = notNegative("drain-timeout", f.drainTimeout)
	o.Drain.Idle = notNegative("drain-idle", f.drainIdle)
	if o.Drain.Timeout > 0 && o.Drain.Idle >= o.Drain.Timeout {
		note(fmt.Errorf("--drain-idle %v never acts before --drain-timeout %v: make it shorter, or leave it out", f.drainIdle, f.drainTimeout))
	}
	for _, s := range f.allow {
		p, err := parseNetwork(s)
		flagErr("allow", err)
		o.Allow = append(o.Allow, p)
	}
	if !oneOf(f.logLevel, "debug", "info", "warn", "error") {
		flagErr("log-level", fmt.Errorf("%q is none of debug, info, warn and error", f.logLevel))
	} else {
		flagErr("log-level", run.level.UnmarshalText([]byte(f.logLevel)))
	}
	if !oneOf(f.logFormat, "text", "json") {
		flagErr("log-format", fmt.Errorf("%q is neither text nor json", f.logFormat))
	}
	if f.loops < 0 || f.loops > maxLoops {
		flagErr("loops", fmt.Errorf("%d is not from 0 to %d", f.loops, maxLoops))
	}
	check, checkErrs := f.check.parse(cmd)
	errs = append(errs, checkErrs...)
	if len(checkErrs) == 0 {
		for _, b := range run.backends {
			if err := check.Validate(b.where()); err != nil {
				note(checkError(err))
				break // what is wrong with one is wrong with all
			}
		}
	}

	run.service = daemon.ServiceOptions{Relay: o, Check: check}
	return run, errors.Join(errs...)
}

// overlap finds a listener that has, or is, the wildcard of a's family and port.
func overlap(a relay.Address, listen []relay.Address) (relay.Address, bool) {
	for _, b := range listen {
		x, y := a.AddrPort(), b.AddrPort()
		if !a.IsUnix() && !b.IsUnix() && x.Port() != 0 && x.Port() == y.Port() && x.Addr().Is4() == y.Addr().Is4() &&
			x.Addr().IsUnspecified() != y.Addr().IsUnspecified() {
			return b, true
		}
	}
	return relay.Address{}, false
}

// parseNetwork understands a network or a single address.
func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is not a network; write it as 10.0.0.0/8 or 2001:db8::/32", s)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q has bits beyond its length; the network is %v", s, p.Masked())
	}
	return p, nil
}

func (r *relayRun) logger(w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: r.level}
	if r.json {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// run serves until a signal says to stop.
func (r *relayRun) run(ctx context.Context, s Streams) (err error) {
	lines := startLines(ctx, journal.NewWriter(s.Err, journal.WriterOptions{Name: "the log"}))
	defer func() { _ = lines.end() }() // there is nowhere left to say it
	log := r.logger(lines)
	// Before the first line is logged, so that whoever reads it may signal.
	signals, release := catchSignals()
	defer release()

	for i := range r.backends {
		b := &r.backends[i]
		others, err := b.resolve(ctx, net.DefaultResolver)
		if err != nil {
			return err
		}
		if b.host != "" {
			attrs := []any{"backend", b.Name, "address", b.Address.String()}
			if len(others) > 0 {
				attrs = append(attrs, "left_out", joinAddrs(others))
			}
			log.Info("host name looked up, once", attrs...)
		}
		r.service.Relay.Backends = append(r.service.Relay.Backends, b.Backend)
	}

	lost := func() (events, logLines uint64) { return 0, lines.Status().Lost }
	file, err := journal.OpenEvents(r.events, s.Out, log)
	if err != nil {
		return err
	}
	var out io.Writer
	if file != nil {
		events := startLines(ctx, file)
		defer func() { err = errors.Join(err, events.end(), events.Close()) }()
		out = events
		lost = func() (uint64, uint64) { return events.Status().Lost, lines.Status().Lost }
	}

	loops := cmp.Or(r.loops, runtime.GOMAXPROCS(0)) // which knows the limits of a container
	spareProcessors(loops)
	d, err := daemon.New(daemon.Options{
		Loops: loops, Services: []daemon.ServiceOptions{r.service}, Logger: log, Events: out, Lost: lost,
	})
	if err != nil {
		return checkError(err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	daemon.DropCapabilities(log)
	return d.Serve(ctx, signals)
}

// catchSignals catches what asks the program to stop. A signal that was ignored
// before the start stays so: that is how nohup works.
func catchSignals() (stop <-chan os.Signal, release func()) {
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, syscall.SIGTERM)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(ch, sig)
		}
	}
	// Whoever reads the log or the events may end first: that is an error of a
	// write, and no reason to die without telling anybody.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	return ch, func() {
		signal.Stop(ch)
		signal.Stop(pipe)
	}
}

// maxLoops is more than any machine has processors for.
const maxLoops = 1024

// spareProcessors leaves the Go scheduler room beside the event loops, as
// package relay advises, unless the user has decided.
func spareProcessors(loops int) {
	const spare = 2
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(loops + spare)
	}
}

func joinAddrs(addrs []netip.Addr) string {
	text := make([]string, len(addrs))
	for i, a := range addrs {
		text[i] = a.String()
	}
	return strings.Join(text, " ")
}
