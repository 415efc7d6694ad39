package admin

import (
	"errors"
	"strings"
	"testing"
)

func TestParseClient(t *testing.T) {
	const (
		v4, v4other, v6, v6other = "10.0.0.9:4711", "10.0.1.9:4711", "[2001:db8::9]:4711", "[2001:db9::9]:4711"
		local                    = "[fe80::1%eth0]:4711"
		unix                     = "unix"
	)
	all := []string{v4, v4other, v6, v6other, local, unix}
	for _, tt := range []struct {
		filter string
		want   []string
	}{
		{"", all},
		{"unix", []string{unix}},
		{"10.0.0.9", []string{v4}},
		{"10.0.0.9:4711", []string{v4}},
		{"10.0.0.9:4712", nil},
		{"::ffff:10.0.0.9", []string{v4}},
		{"[::ffff:10.0.0.9]:4711", []string{v4}},
		{"10.0.0.0/24", []string{v4}},
		{"10.0.0.0/8", []string{v4, v4other}},
		{"::ffff:10.0.0.0/104", []string{v4, v4other}},
		{"0.0.0.0/0", []string{v4, v4other}},
		{"::/0", []string{v6, v6other, local}},
		{"2001:db8::/32", []string{v6}},
		{"2001:db8::9", []string{v6}},
		{"[2001:db8::9]", []string{v6}},
		{"[2001:db8::9]:4711", []string{v6}},
		{"[2001:db8::9]:1", nil},
		{"fe80::1", []string{local}},
		{"fe80::1%eth0", []string{local}},
		{"[fe80::1%eth0]:4711", []string{local}},
		{"[fe80::1%eth1]:4711", nil},
		{"fe80::/10", []string{local}},
	} {
		f, err := ParseClient(tt.filter)
		if err != nil {
			t.Errorf("%q: %v", tt.filter, err)
			continue
		}
		var got []string
		for _, c := range all {
			if f.Match(c) {
				got = append(got, c)
			}
		}
		if strings.Join(got, " ") != strings.Join(tt.want, " ") {
			t.Errorf("%q lets %v pass, want %v", tt.filter, got, tt.want)
		}
		if back, err := ParseClient(f.String()); err != nil || back != f {
			t.Errorf("%q is written as %q, which is %+v, %v", tt.filter, f, back, err)
		}
	}
	for filter, want := range map[string]string{
		"10.0.0.9/8":       "write 10.0.0.0/8 for the network, or 10.0.0.9 for the address alone",
		"10.0.0.256":       "is none of these",
		"10.0.0.0/33":      "is none of these",
		"fe80::1%eth0/64":  "is none of these",
		"localhost":        "is none of these",
		"10.0.0.9:0":       "there is no port 0",
		"10.0.0.9:70000":   "is none of these",
		"2001:db8::9/":     "is none of these",
		"unix:/run/a.sock": "is none of these",
	} {
		if _, err := ParseClient(filter); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", filter, err, want)
		}
	}
}

func FuzzParseClient(f *testing.F) {
	for _, s := range []string{"", "unix", "10.0.0.9:1", "[fe80::1%x]:2", "::/0", "::ffff:0:0/96", "[::1", "1.2.3.4]"} {
		f.Add(s, "10.0.0.9:1")
	}
	f.Fuzz(func(t *testing.T, filter, client string) {
		c, err := ParseClient(filter)
		if err != nil {
			return
		}
		back, err := ParseClient(c.String())
		if err != nil || back != c {
			t.Errorf("%q is written as %q, which is %+v, %v", filter, c, back, err)
		}
		if c.Any() != (filter == "") {
			t.Errorf("%q is everybody: %v", filter, c.Any())
		}
		c.Match(client)
	})
}

func TestMatcher(t *testing.T) {
	end := &Event{Event: EventConnection, Service: "redis", Backend: "r1", ConnectionEnd: &ConnectionEnd{Client: "10.0.0.9:1"}}
	change := &Event{Event: EventBackend, Service: "redis", Backend: "r1", Change: &Change{State: "up"}}
	node := &Event{Event: EventNode, Change: &Change{State: "started"}}
	lost := &Event{Event: EventLost, Count: 3}
	for _, tt := range []struct {
		filter                  Filter
		end, change, node, lost bool
	}{
		{Filter{}, true, true, true, true},
		{Filter{Service: "redis"}, true, true, false, true},
		{Filter{Service: "redis", Backend: "r1"}, true, true, false, true},
		{Filter{Backend: "r2"}, false, false, false, true},
		{Filter{Service: "pg"}, false, false, false, true},
		{Filter{Client: "10.0.0.0/8"}, true, false, false, true},
		{Filter{Client: "unix"}, false, false, false, true},
	} {
		m, err := tt.filter.Matcher()
		if err != nil {
			t.Fatal(err)
		}
		for e, want := range map[*Event]bool{end: tt.end, change: tt.change, node: tt.node, lost: tt.lost} {
			if got := m.Event(e); got != want {
				t.Errorf("%+v: %s passes: %v, want %v", tt.filter, e.Event, got, want)
			}
		}
	}
	for _, bad := range []Filter{{Limit: -1}, {Client: "x"}} {
		_, err := bad.Matcher()
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeInvalid {
			t.Errorf("%+v: %v, want an *Error with code invalid", bad, err)
		}
	}
}
