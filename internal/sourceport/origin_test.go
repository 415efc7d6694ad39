package sourceport

import (
	"net/netip"
	"strings"
	"testing"
)

func TestOrigins(t *testing.T) {
	a := netip.MustParseAddr
	all, err := NewOrigins([][]netip.Addr{{a("10.0.0.100"), a("2001:db8::100"), a("10.0.0.101")}, {a("10.0.1.100")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ local, backend, want string }{
		{"10.0.0.100", "10.0.0.21", "10.0.0.100"},
		{"10.0.0.101", "10.0.0.21", "10.0.0.101"},
		{"10.0.0.101", "2001:db8::21", "2001:db8::100"},
		{"2001:db8::100", "10.0.0.21", "10.0.0.100"},
		{"10.0.1.100", "10.0.0.21", "10.0.1.100"},
		{"10.0.1.100", "2001:db8::21", ""},
		{"10.0.0.100", "", ""},
		{"10.0.0.100", "127.0.0.1", ""},
		{"2001:db8::100", "::1", ""},
		{"2001:db8::100", "fe80::1%lo", ""},
		{"10.0.0.102", "10.0.0.21", ""},
	} {
		var backend, want netip.Addr
		if tt.backend != "" {
			backend = a(tt.backend)
		}
		if tt.want != "" {
			want = a(tt.want)
		}
		if got := all.Of(a(tt.local), backend); got != want {
			t.Errorf("who has come to %s, to %s: from %v, want %v", tt.local, tt.backend, got, want)
		}
	}
	if !all.Has(a("10.0.1.100")) || all.Has(a("10.0.0.102")) {
		t.Error("what is in the groups is not known")
	}
}

func TestOriginsAreChecked(t *testing.T) {
	a := netip.MustParseAddr
	for text, groups := range map[string][][]netip.Addr{
		"[0][1] is invalid IP":            {{a("10.0.0.1"), {}}},
		"[0][0] is fe80::1;":              {{a("fe80::1")}},
		"[0][0] is fd00::1%eth0;":         {{a("fd00::1%eth0")}},
		"[0][0] is ::ffff:10.0.0.1;":      {{a("::ffff:10.0.0.1")}},
		"[1][0]: 10.0.0.1 is there twice": {{a("10.0.0.1")}, {a("10.0.0.1")}},
	} {
		if _, err := NewOrigins(groups); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v, want %q", groups, err, text)
		}
	}
}
