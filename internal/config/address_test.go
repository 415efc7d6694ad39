package config

import (
	"strings"
	"testing"
)

func TestParseListen(t *testing.T) {
	for s, want := range map[string]string{
		"127.0.0.1:6380": "", "[::1]:80": "", "[fe80::1%eth0]:1": "", ":8080": "", "unix:/run/x.sock": "", "unix:x": "", "127.0.0.1:0": "",
		"0.0.0.0:80": "", "[::]:80": "", "unix:/run/x:1": "",
		"[::ffff:10.0.0.1]:80": "10.0.0.1:80", "[2001:DB8:0::1]:80": "[2001:db8::1]:80", ":0080": ":80",

		"8080":                       `! "8080" is a number; write :8080 for that port on every address`,
		"localhost:80":               `! "localhost:80" names a host; a service listens on an address: write 127.0.0.1:80, or :80 for every address`,
		"*:80":                       `! "*:80" has a *; write :80 for every address`,
		"127.0.0.1":                  `! "127.0.0.1" has no port; write 127.0.0.1:PORT`,
		"::1":                        `! "::1" has no port; write [::1]:PORT`,
		"[::1]":                      `! "[::1]" has no port; write [::1]:PORT`,
		"2001:db8::1:80":             `! "2001:db8::1:80": an IPv6 address stands in brackets before its port; write [2001:db8::1]:80`,
		"127.0.0.1:http":             `! "127.0.0.1:http": "http" is not a port number; write one from 1 to 65535`,
		"127.0.0.1:+80":              `! "127.0.0.1:+80": "+80" is not a port number; write one from 1 to 65535`,
		"127.0.0.1:":                 `! "127.0.0.1:": "" is not a port number; write one from 1 to 65535`,
		":70000":                     `! ":70000": "70000" is not a port number; write one from 1 to 65535`,
		":0":                         `! ":0" would be another port for each address family; write 127.0.0.1:0 or [::1]:0`,
		"/run/x.sock":                `! "/run/x.sock" is a path; write unix:/run/x.sock for a unix socket`,
		"unix:":                      `! "unix:": the path of the unix socket is missing; write unix:/path`,
		"unix:///run/x":              `! "unix:///run/x": write it without the two slashes, as unix:/run/x`,
		"http://10.0.0.1:80":         `! "http://10.0.0.1:80": write it without http://, as ADDRESS:PORT`,
		"300.0.0.1:80":               `! "300.0.0.1:80": 300.0.0.1 is no IP address; an IPv4 address has four numbers from 0 to 255`,
		"10.0.0.0/8":                 `! "10.0.0.0/8" is a network; write the one address, and its port: 10.0.0.0:PORT`,
		"":                           `! "" is no address; write ADDRESS:PORT, [IPv6]:PORT or unix:/path`,
		"web":                        `! "web" is no address; write ADDRESS:PORT, or :PORT for every address`,
		"[zz]:80":                    `! "[zz]:80": "zz" is no IPv6 address`,
		"[10.0.0.1]:80":              "10.0.0.1:80",
		"a:b:c":                      `! "a:b:c" is not ADDRESS:PORT, [IPv6]:PORT or unix:/path`,
		"[fe80::1%a b]:80":           `! "[fe80::1%a b]:80": "a b" is no name of an interface; it has at most 15 characters`,
		"unix:/" + long(110):         `! "unix:/` + long(110) + `": the path of a unix socket has at most 107 bytes, this one has 111; choose a shorter one`,
		"unix:/a\x00b":               `! "unix:/a\x00b": a path has no control characters; leave them out`,
		"[fe80::1%eth0]:80 # remark": `! "[fe80::1%eth0]:80 # remark": "80 # remark" is not a port number; write one from 1 to 65535`,
	} {
		if want == "" {
			want = s
		}
		a, err := ParseListen(s)
		got := a.String()
		if err != nil {
			got = "! " + err.Error()
		}
		if got != want {
			t.Errorf("ParseListen(%q):\ngot  %s\nwant %s", s, got, want)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func TestParseBackendAddress(t *testing.T) {
	for s, want := range map[string]string{
		"10.0.0.1:80": "", "[::1]:80": "", "unix:/run/x": "", "host:1": "", "a.b-c_d.example.:65535": "",

		"6379":            `! "6379" is a number; write 127.0.0.1:6379 for that port of this host`,
		":6379":           `! ":6379" has no address; write 127.0.0.1:6379 for that port of this host`,
		"10.0.0.1:0":      `! "10.0.0.1:0": port 0 cannot be connected to; write a number from 1 to 65535`,
		"host":            `! "host" has no port; write host:PORT`,
		"-a:80":           `! "-a:80": "-a" is no host name; a part of one does not begin or end with -`,
		"a..b:80":         `! "a..b:80": "a..b" is no host name; there is nothing between two of its dots`,
		"é:80":            `! "é:80": "é" is no host name; 'é' does not occur in one`,
		".:80":            `! ".:80": . is no IP address; an IPv4 address has four numbers from 0 to 255`,
		"10.0.0.300:80":   `! "10.0.0.300:80": 10.0.0.300 is no IP address; an IPv4 address has four numbers from 0 to 255`,
		long(64) + ":80":  `! "` + long(64) + `:80": "` + long(60) + `…" is no host name; there are at most 63 characters between two dots`,
		"*:80":            `! "*:80": "*" is no host name; '*' does not occur in one`,
		"10.0.0.1:80,w=1": `! "10.0.0.1:80,w=1": "80,w=1" is not a port number; write one from 1 to 65535`,
	} {
		if want == "" {
			want = s
		}
		a, err := ParseBackendAddress(s)
		got := a.String()
		if err != nil {
			got = "! " + err.Error()
		}
		if got != want {
			t.Errorf("ParseBackendAddress(%q):\ngot  %s\nwant %s", s, got, want)
		}
	}
}

// TestOverlap says which listeners exclude each other, and which backends are
// listeners of this machine.
func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		clash bool
	}{
		{":80", "10.0.0.1:80", true}, {":80", "[::1]:80", true}, {":80", ":80", true}, {":80", ":81", false}, {":80", "0.0.0.0:80", true}, {":80", "[::]:80", true},
		{"0.0.0.0:80", "10.0.0.1:80", true}, {"0.0.0.0:80", "[::1]:80", false}, {"0.0.0.0:80", "[::]:80", false}, {"[::]:80", "[::1]:80", true}, {"[::]:80", "10.0.0.1:80", false},
		{"10.0.0.1:80", "10.0.0.2:80", false}, {"10.0.0.1:80", "10.0.0.1:81", false}, {"10.0.0.1:80", "[::ffff:10.0.0.1]:80", true},
		{"unix:/a", "unix:/a", true}, {"unix:/a/../b", "unix:/b", true}, {"unix:/a", "unix:/b", false}, {"unix:/a", ":80", false},
	} {
		a, b := mustListen(c.a), mustListen(c.b)
		for range 2 {
			if got := conflict(listener{Address: a}, b) != ""; got != c.clash {
				t.Errorf("%v and %v: %v", a, b, got)
			}
			a, b = b, a
		}
	}
	for _, c := range []struct {
		backend, listen string
		reaches         bool
	}{
		{"10.0.0.1:80", "10.0.0.1:80", true}, {"10.0.0.1:80", ":80", false}, {"127.0.0.1:80", ":80", true}, {"127.0.0.9:80", "0.0.0.0:80", true}, {"127.0.0.1:80", "[::]:80", false},
		{"[::1]:80", "[::]:80", true}, {"[::1]:80", ":80", true}, {"127.0.0.2:80", "127.0.0.1:80", false}, {"127.0.0.1:80", ":81", false},
		{"localhost:80", "127.0.0.1:80", true}, {"localhost:80", "[::1]:80", true}, {"localhost:80", ":80", true}, {"localhost:80", "10.0.0.1:80", false}, {"localhost:80", "127.0.0.2:80", false},
		{"web:80", ":80", false}, {"unix:/a/./b", "unix:/a/b", true}, {"unix:/a", ":80", false},
	} {
		if got := mustBackend(c.backend).reaches(mustListen(c.listen)); got != c.reaches {
			t.Errorf("%s reaches %s: %v", c.backend, c.listen, got)
		}
	}
}

func TestMode(t *testing.T) {
	for s, want := range map[string]Mode{"0660": 0o660, "600": 0o600, "0777": 0o777, "1660": 0o1660} {
		var m Mode
		if err := m.UnmarshalText([]byte(s)); err != nil || m != want {
			t.Errorf("%q: %v, %v", s, m, err)
		}
	}
	for _, s := range []string{"", "66", "06600", "0668", "rw-", "-660", "+660", "0o66"} {
		var m Mode
		if err := m.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q is taken as %v", s, m)
		}
	}
	if got := Mode(0o60).String(); got != "0060" {
		t.Errorf("String gave %s", got)
	}
}
