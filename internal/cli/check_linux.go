package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/health"
)

// checkKinds are the kinds of check, as --check names them.
var checkKinds = []string{"tcp", "http", "exchange", "command", "none"}

// checkFlags are the flags of the health check.
type checkFlags struct {
	kind       string
	path       string
	status     string
	host       string
	send       string
	expect     string
	command    string
	port       int
	address    string
	tls        bool
	serverName string
	insecure   bool
	interval   time.Duration
	timeout    time.Duration
	fall       int
	rise       int
}

// checkNeeds says which kinds of check each flag is for.
var checkNeeds = []struct {
	flag  string
	kinds []string
}{
	{"check-path", []string{"http"}},
	{"check-status", []string{"http"}},
	{"check-host", []string{"http"}},
	{"check-send", []string{"exchange"}},
	{"check-expect", []string{"exchange"}},
	{"check-command", []string{"command"}},
	{"check-port", []string{"tcp", "http", "exchange"}},
	{"check-address", []string{"tcp", "http", "exchange"}},
	{"check-tls", []string{"tcp", "http", "exchange"}},
	{"check-server-name", []string{"tcp", "http", "exchange"}},
	{"check-insecure", []string{"tcp", "http", "exchange"}},
	{"check-interval", []string{"tcp", "http", "exchange", "command"}},
	{"check-timeout", []string{"tcp", "http", "exchange", "command"}},
	{"check-fall", []string{"tcp", "http", "exchange", "command"}},
	{"check-rise", []string{"tcp", "http", "exchange", "command"}},
}

func (f *checkFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.kind, "check", "tcp", "how backends are checked: "+strings.Join(checkKinds, ", "))
	flags.StringVar(&f.path, "check-path", "/", "http: the `path` to get")
	flags.StringVar(&f.status, "check-status", "200-399", "http: which `status` is well, as 200-299,404")
	flags.StringVar(&f.host, "check-host", "", "http: the `host` to ask for (default: the backend's address)")
	flags.StringVar(&f.send, "check-send", "", `exchange: the `+"`text`"+` to send; \r, \n, \t and \x00 are understood`)
	flags.StringVar(&f.expect, "check-expect", "", "exchange: the `text` that must be in the answer")
	flags.StringVar(&f.command, "check-command", "", "command: the `program` to run, which exits with 0 where the backend is well; arguments after spaces, no shell")
	flags.IntVar(&f.port, "check-port", 0, "check another `port` than the service's")
	flags.StringVar(&f.address, "check-address", "", "check another `address` than the backend's: an IP address, a host name or unix:/path")
	flags.BoolVar(&f.tls, "check-tls", false, "check by TLS")
	flags.StringVar(&f.serverName, "check-server-name", "", "TLS: the `name` that the certificate must have")
	flags.BoolVar(&f.insecure, "check-insecure", false, "TLS: take any certificate")
	flags.DurationVar(&f.interval, "check-interval", health.DefaultInterval, "from one check to the next")
	flags.DurationVar(&f.timeout, "check-timeout", health.DefaultTimeout, "a check that takes longer has failed")
	flags.IntVar(&f.fall, "check-fall", health.DefaultFall, "this `many` failures in a row mean down")
	flags.IntVar(&f.rise, "check-rise", health.DefaultRise, "this `many` successes in a row mean up")
}

// contradictions lists what the flags say that goes together with nothing.
func (f *checkFlags) contradictions(cmd *cobra.Command) []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !slices.Contains(checkKinds, f.kind) {
		bad("--check: %q is none of %s", f.kind, strings.Join(checkKinds, ", "))
		return errs
	}
	for _, n := range checkNeeds {
		if cmd.Flags().Changed(n.flag) && !slices.Contains(n.kinds, f.kind) {
			bad("--%s needs --check %s; this is --check %s", n.flag, strings.Join(n.kinds, " or "), f.kind)
		}
	}
	for _, name := range []string{"check-server-name", "check-insecure"} {
		if cmd.Flags().Changed(name) && !f.tls {
			bad("--%s needs --check-tls", name)
		}
	}
	if f.serverName != "" && f.insecure {
		bad("--check-server-name means nothing with --check-insecure, which takes any certificate")
	}
	if f.kind == "command" && strings.TrimSpace(f.command) == "" {
		bad("--check command needs --check-command PROGRAM")
	}
	if f.kind == "exchange" && f.expect == "" {
		bad("--check exchange needs --check-expect TEXT: what a healthy backend answers")
	}
	if f.port < 0 || f.port > 65535 || cmd.Flags().Changed("check-port") && f.port == 0 {
		bad("--check-port: %d is not a port number", f.port)
	}
	return errs
}

// unescape understands the escapes that a shell makes hard to write.
func unescape(s string) (string, error) {
	text, err := strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`)
	if err != nil {
		return "", fmt.Errorf(`%q has a backslash that is not one of \r \n \t \\ \xHH`, s)
	}
	return text, nil
}

// parse makes a health.Check of the flags, and lists everything wrong with them.
func (f *checkFlags) parse(cmd *cobra.Command) (health.Check, []error) {
	c := health.Check{}
	errs := f.contradictions(cmd)
	if len(errs) > 0 {
		return c, errs
	}
	bad := func(flag, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--"+flag+": "+format, args...))
	}
	var err error
	if c.Kind, err = health.ParseKind(f.kind); err != nil {
		bad("check", "%w", err)
	}
	switch c.Kind {
	case health.HTTP:
		c.HTTP = health.HTTPCheck{Path: f.path, Host: f.host, Status: f.status}
	case health.Exchange:
		for flag, to := range map[string]*string{"check-send": &c.Exchange.Send, "check-expect": &c.Exchange.Expect} {
			if *to, err = unescape(cmd.Flags().Lookup(flag).Value.String()); err != nil {
				bad(flag, "%w", err)
			}
		}
	case health.Command:
		c.Command.Argv = strings.Fields(f.command)
	case health.TCP, health.None:
	}
	if c.Kind == health.None {
		return c, errs
	}
	for flag, d := range map[string]time.Duration{"check-interval": f.interval, "check-timeout": f.timeout} {
		if d < health.MinDuration || d > health.MaxDuration {
			bad(flag, "%v is not from %v to %v", d, health.MinDuration, health.MaxDuration)
		}
	}
	for flag, n := range map[string]int{"check-fall": f.fall, "check-rise": f.rise} {
		if n < 1 || n > health.MaxRow {
			bad(flag, "%d is not from 1 to %d", n, health.MaxRow)
		}
	}
	c.Interval, c.Timeout, c.Fall, c.Rise = f.interval, f.timeout, f.fall, f.rise
	c.Address, c.Port = f.address, f.port
	c.TLS = health.TLS{Enabled: f.tls, ServerName: f.serverName, Insecure: f.insecure}
	return c, errs
}

// checkError says what package health says of a Check in the words of the flags.
func checkError(err error) error {
	text := err.Error()
	if !strings.Contains(text, "health: ") {
		return err
	}
	return errors.New(strings.NewReplacer(
		"health: HTTP.Path", "--check-path", "health: HTTP.Host", "--check-host", "health: HTTP.Status", "--check-status",
		"health: Exchange.Send", "--check-send", "health: Exchange.Expect", "--check-expect", "health: Command.Argv", "--check-command",
		"health: TLS.ServerName", "--check-server-name", "health: Check.Port", "--check-port", "health: Check.Address", "--check-address",
		"Check.Port", "--check-port", "Check.Address", "--check-address", "health: ", "--check: ",
	).Replace(text))
}
