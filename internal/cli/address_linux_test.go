package cli

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/holdfast-net/holdfast/relay"
)

func TestParseListen(t *testing.T) {
	for s, want := range map[string]string{
		"127.0.0.1:6380":   "127.0.0.1:6380",
		"[::1]:80":         "[::1]:80",
		"[fe80::1%eth0]:1": "[fe80::1%eth0]:1",
		":8080":            "0.0.0.0:8080 [::]:8080",
		"unix:/run/x.sock": "unix:/run/x.sock",
		"127.0.0.1:0":      "127.0.0.1:0",

		"8080":           `LISTEN "8080" is a number; write :8080 for that port on every address`,
		"localhost:80":   `LISTEN "localhost:80" names a host; a service listens on an address: write 127.0.0.1:80, or :80 for every address`,
		"127.0.0.1":      `LISTEN "127.0.0.1" has no port`,
		"::1":            `LISTEN "::1" has no port`,
		"127.0.0.1:http": `LISTEN "127.0.0.1:http": "http" is not a port number`,
		":http":          `LISTEN ":http": "http" is not a port number`,
		":70000":         `LISTEN ":70000": "70000" is not a port number`,
		":0":             `LISTEN ":0" would be another port for each address family; write 127.0.0.1:0 or [::1]:0`,
		"/run/x.sock":    `LISTEN "/run/x.sock" is a path; write unix:/run/x.sock for a unix socket`,
		"unix:":          `the path of the unix socket is missing`,
	} {
		addrs, err := parseListen(s, true)
		var got []string
		for _, a := range addrs {
			got = append(got, a.String())
		}
		text := strings.Join(got, " ")
		if err != nil {
			text = err.Error()
		}
		if text != want && !(err != nil && strings.Contains(text, want)) {
			t.Errorf("parseListen(%q):\ngot  %s\nwant %s", s, text, want)
		}
	}
}

func TestParseListenWithoutIPv6(t *testing.T) {
	if got, err := parseListen(":80", false); err != nil || len(got) != 1 || got[0].String() != "0.0.0.0:80" {
		t.Errorf("parseListen gave %v, %v", got, err)
	}
	if got, err := parseListen(":0", false); err != nil || len(got) != 1 || got[0].String() != "0.0.0.0:0" {
		t.Errorf("parseListen gave %v, %v", got, err)
	}
}

func TestParseBackend(t *testing.T) {
	at := relay.MustParseAddress
	for s, want := range map[string]backendArg{
		"10.0.0.21:80":        {Backend: relay.Backend{Name: "10.0.0.21:80", Address: at("10.0.0.21:80"), Weight: 100}},
		"[2001:db8::1]:80":    {Backend: relay.Backend{Name: "[2001:db8::1]:80", Address: at("[2001:db8::1]:80"), Weight: 100}},
		"unix:/run/r2.sock":   {Backend: relay.Backend{Name: "unix:/run/r2.sock", Address: at("unix:/run/r2.sock"), Weight: 100}},
		"localhost:80,name=l": {Backend: relay.Backend{Name: "l", Weight: 100}, host: "localhost", port: 80},
		"10.0.0.1:1,weight=0": {Backend: relay.Backend{Name: "10.0.0.1:1", Address: at("10.0.0.1:1")}},
		"[::1]:1,backup":      {Backend: relay.Backend{Name: "[::1]:1", Address: at("[::1]:1"), Weight: 100, Backup: true}},
		"unix:/s,name=x,weight=65535,max_connections=7,backup": {Backend: relay.Backend{
			Name: "x", Address: at("unix:/s"), Weight: 65535, MaxConnections: 7, Backup: true,
		}},
	} {
		got, err := parseBackend(s)
		if err != nil || got != want {
			t.Errorf("parseBackend(%q):\ngot  %+v, %v\nwant %+v", s, got, err, want)
		}
	}
}

func TestParseBackendRefuses(t *testing.T) {
	for s, want := range map[string]string{
		"6379":                     `BACKEND "6379" is a number; write 127.0.0.1:6379 for that port of this host`,
		":6379":                    `BACKEND ":6379" has no address; write 127.0.0.1:6379 for that port of this host`,
		"10.0.0.1":                 `BACKEND "10.0.0.1" has no port`,
		"10.0.0.1:0":               `BACKEND "10.0.0.1:0": port 0 cannot be connected to`,
		"10.0.0.300:80":            `BACKEND "10.0.0.300:80": 10.0.0.300 is no IP address; an IPv4 address has four numbers from 0 to 255`,
		"host":                     `BACKEND "host" has no port; write host:PORT`,
		"host:http":                `BACKEND "host:http": "http" is not a port number`,
		"/run/x":                   `BACKEND "/run/x" is a path; write unix:/run/x for a unix socket`,
		"http://host:80":           `BACKEND "http://host:80": write it without http://, as ADDRESS:PORT`,
		"10.0.0.1:1,weight=-1":     `weight=-1 is not a number from 0 to 65535`,
		"10.0.0.1:1,weight=65536":  `weight=65536 is not a number from 0 to 65535`,
		"10.0.0.1:1,weight":        `weight= has no value`,
		"10.0.0.1:1,name=":         `name= has no value`,
		"10.0.0.1:1,backup=yes":    `backup takes no value`,
		"10.0.0.1:1,wieght=1":      `there is no setting "wieght"; a backend has name=, weight=, max_connections= and backup`,
		"10.0.0.1:1,name=a,name=b": `name is given twice`,
	} {
		if _, err := parseBackend(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseBackend(%q):\ngot  %v\nwant %s", s, err, want)
		}
	}
}

func FuzzParseBackend(f *testing.F) {
	f.Add("10.0.0.1:80,name=a,weight=3,backup")
	f.Add("unix:/x,weight=0")
	f.Add("host:80")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := parseBackend(s)
		if err != nil {
			return
		}
		if b.Name == "" || b.Address.IsValid() == (b.host != "") || b.Weight < 0 || b.Weight > 65535 || b.MaxConnections < 0 {
			t.Errorf("parseBackend(%q) = %+v", s, b)
		}
	})
}

func TestParseNetwork(t *testing.T) {
	for s, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "2001:db8::/32": "2001:db8::/32", "10.1.2.3": "10.1.2.3/32", "::1": "::1/128",
	} {
		if got, err := parseNetwork(s); err != nil || got != netip.MustParsePrefix(want) {
			t.Errorf("parseNetwork(%q) = %v, %v", s, got, err)
		}
	}
	for s, want := range map[string]string{
		"10.0.0.1/8": "the network is 10.0.0.0/8", "office": "write it as", "fe80::1%eth0": "write it as",
	} {
		if _, err := parseNetwork(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseNetwork(%q): %v, want %q", s, err, want)
		}
	}
}
