//go:build linux

package health

import (
	"strings"
	"testing"
	"time"
)

func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		backend string
		check   Check
		want    string // or, with an exclamation mark, a part of the error
	}{
		{"10.0.0.1:80", Check{}, "10.0.0.1:80"},
		{"[2001:db8::1]:80", Check{}, "[2001:db8::1]:80"},
		{"[fe80::1%eth0]:80", Check{}, "[fe80::1%eth0]:80"},
		{"web:80", Check{}, "web:80"},
		{"unix:/run/r.sock", Check{}, "unix:/run/r.sock"},
		{"10.0.0.1:80", Check{Port: 8008}, "10.0.0.1:8008"},
		{"10.0.0.1:80", Check{Address: "10.0.0.2"}, "10.0.0.2:80"},
		{"10.0.0.1:80", Check{Address: "2001:db8::2", Port: 81}, "[2001:db8::2]:81"},
		{"10.0.0.1:80", Check{Address: "[2001:db8::2]"}, "[2001:db8::2]:80"},
		{"10.0.0.1:80", Check{Address: "unix:/run/health.sock"}, "unix:/run/health.sock"},
		{"unix:/run/r.sock", Check{Address: "127.0.0.1", Port: 81}, "127.0.0.1:81"},

		{"", Check{}, "!Address"},
		{"10.0.0.1", Check{}, "!HOST:PORT"},
		{":80", Check{}, "!names no host"},
		{"10.0.0.1:http", Check{}, "!port"},
		{"10.0.0.1:0", Check{}, "!port"},
		{"unix:", Check{}, "!path"},
		{"10.0.0.1:80", Check{Port: 65536}, "!Check.Port"},
		{"10.0.0.1:80", Check{Port: -1}, "!Check.Port"},
		{"10.0.0.1:80", Check{Address: "10.0.0.2:81"}, "!Check.Port"},
		{"10.0.0.1:80", Check{Address: "unix:/x", Port: 81}, "!no Port"},
		{"unix:/run/r.sock", Check{Port: 81}, "!Check.Address"},
		{"unix:/run/r.sock", Check{Address: "127.0.0.1"}, "!Check.Port"},
	} {
		err := tt.check.Validate(tt.backend)
		if want, isError := strings.CutPrefix(tt.want, "!"); isError {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q, %+v: error %v, want one with %q", tt.backend, tt.check, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q, %+v: %v", tt.backend, tt.check, err)
			continue
		}
		if got, _ := tt.check.target(tt.backend); got.String() != tt.want {
			t.Errorf("%q, %+v: checks %s, want %s", tt.backend, tt.check, got, tt.want)
		}
	}
}

func TestValidate(t *testing.T) {
	exchange := ExchangeCheck{Expect: "x"}
	for _, tt := range []struct {
		check Check
		want  string // in the error; empty: valid
	}{
		{Check{}, ""},
		{Check{Kind: HTTP}, ""},
		{Check{Kind: HTTP, HTTP: HTTPCheck{Path: "/a?b=c", Host: "x", Status: "200-299, 404"}}, ""},
		{Check{Kind: Exchange, Exchange: exchange, TLS: TLS{Enabled: true}}, ""},
		{Check{Kind: Command, Command: CommandCheck{Argv: []string{"true"}}}, ""},
		{Check{Kind: None}, ""},

		{Check{Kind: 9}, "Kind"},
		{Check{Interval: time.Microsecond}, "Interval"},
		{Check{Interval: 2 * time.Hour}, "Interval"},
		{Check{Timeout: -1}, "Timeout"},
		{Check{Fall: -1}, "Fall"},
		{Check{Rise: 1001}, "Rise"},
		{Check{HTTP: HTTPCheck{Path: "/"}}, "HTTP is set"},
		{Check{Exchange: exchange}, "Exchange is set"},
		{Check{Command: CommandCheck{User: "nobody"}}, "Command is set"},
		{Check{Kind: None, Port: 80}, "Port is set"},
		{Check{Kind: None, Address: "10.0.0.1"}, "Address is set"},
		{Check{Kind: Command, Command: CommandCheck{Argv: []string{"true"}}, TLS: TLS{Enabled: true}}, "TLS is set"},
		{Check{TLS: TLS{ServerName: "x"}}, "not Enabled"},
		{Check{Kind: HTTP, HTTP: HTTPCheck{Path: "x"}}, "HTTP.Path"},
		{Check{Kind: HTTP, HTTP: HTTPCheck{Path: "/ HTTP/1.0\r\nX: y"}}, "HTTP.Path"},
		{Check{Kind: HTTP, HTTP: HTTPCheck{Host: "a\r\nb"}}, "HTTP.Host"},
		{Check{Kind: HTTP, HTTP: HTTPCheck{Status: "2xx"}}, "HTTP.Status"},
		{Check{Kind: HTTP, HTTP: HTTPCheck{Status: "399-200"}}, "HTTP.Status"},
		{Check{Kind: HTTP, HTTP: HTTPCheck{Status: "200,"}}, "HTTP.Status"},
		{Check{Kind: Exchange}, "Exchange.Expect"},
		{Check{Kind: Exchange, Exchange: ExchangeCheck{Expect: strings.Repeat("x", maxAnswer+1)}}, "Exchange.Expect"},
		{Check{Kind: Command}, "Command.Argv"},
		{Check{Address: "unix:/x", TLS: TLS{Enabled: true}}, "TLS.ServerName"},
		{Check{Address: "unix:/x", TLS: TLS{Enabled: true, Insecure: true}}, ""},
		{Check{Fall: -1, Rise: -1}, "Rise"}, // both are named
	} {
		err := tt.check.Validate("10.0.0.1:80")
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: error %v, want one with %q", tt.check, err, tt.want)
		}
	}
	for _, command := range []CommandCheck{
		{Argv: []string{"no such program"}},
		{Argv: []string{"true"}, User: "no such user"},
	} {
		if _, err := New(Options{Address: "10.0.0.1:80", Check: Check{Kind: Command, Command: command}}); err == nil {
			t.Errorf("New took %+v", command)
		}
	}
}

func TestText(t *testing.T) {
	for k := TCP; k <= None; k++ {
		text, err := k.MarshalText()
		var back Kind
		if err != nil || back.UnmarshalText(text) != nil || back != k || k.String() != string(text) {
			t.Errorf("kind %d: text %q, %v, back to %v", k, text, err, back)
		}
	}
	if _, err := Kind(9).MarshalText(); err == nil {
		t.Error("an unknown kind has a text")
	}
	if _, err := ParseKind("icmp"); err == nil {
		t.Error("icmp was parsed")
	}
	for s, want := range map[State]string{Unknown: "unknown", Up: "up", Down: "down"} {
		if text, err := s.MarshalText(); err != nil || string(text) != want {
			t.Errorf("state %d: %q, %v", s, text, err)
		}
	}
	if _, err := State(9).MarshalText(); err == nil {
		t.Error("an unknown state has a text")
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("10.0.0.1:80", "", 0, "200-399", "/")
	f.Add("unix:/x", "[::1]", 80, "200,404", "/x")
	f.Fuzz(func(t *testing.T, backend, address string, port int, status, path string) {
		check := Check{Kind: HTTP, Address: address, Port: port, HTTP: HTTPCheck{Status: status, Path: path}}
		if check.Validate(backend) != nil {
			return
		}
		// What is valid can be checked: it has a target and no way into the request.
		got, err := check.target(backend)
		if err != nil || got.address == "" || got.network == "tcp" && got.host == "" {
			t.Errorf("%q, %+v is valid, but its target is %+v, %v", backend, check, got, err)
		}
		if strings.ContainsAny(check.withDefaults().HTTP.Path, " \r\n") {
			t.Errorf("the path %q is valid", check.HTTP.Path)
		}
		if _, err := New(Options{Address: backend, Check: check}); err != nil {
			t.Errorf("Validate takes what New does not: %v", err)
		}
	})
}
