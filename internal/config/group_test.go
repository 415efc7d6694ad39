package config

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func readGood(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/good/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPairAndAddresses(t *testing.T) {
	got := parse(t, readGood(t, "pair.yaml"))
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	track := Track{Interval: time.Second, Fall: 3, Rise: 2}
	wantPair := &Pair{Listen: mustBackend("10.0.0.11:7420"), Peer: mustBackend("10.0.0.12:7420"), Keys: "/etc/holdfast/keys", Witness: addr("10.0.0.1")}
	want := []AddressGroup{
		{
			Name: "front", Interface: "eth0",
			Addresses: []netip.Prefix{prefix("10.0.0.100/24"), prefix("10.0.0.101/32"), prefix("2001:db8::100/64"), prefix("fe80::100/64")},
			VRRP: &VRRP{
				ID: 51, Priority: 255, Interval: 10 * time.Millisecond, Preempt: true, PreemptDelay: time.Minute, Peers: []netip.Addr{addr("10.0.0.12"), addr("fe80::2")},
			},
			Track:  Track{Interfaces: []string{"eth1", "br0.12"}, Command: []string{"/usr/local/bin/check", "db"}, Interval: 500 * time.Millisecond, Fall: 1, Rise: 5},
			Notify: Notify{Active: []string{"/usr/local/bin/role", "active"}, Backup: []string{"role"}},
		},
		{
			Name: "second", Interface: "eth1", Addresses: []netip.Prefix{prefix("fe80::100/64"), prefix("192.0.2.0/31")},
			VRRP: &VRRP{ID: 51, Priority: 200, Interval: 100 * time.Millisecond}, Track: track,
		},
		{Name: "lone", Interface: "eth2", Addresses: []netip.Prefix{prefix("198.51.100.7/32")}, Track: track},
	}
	if d := cmp.Diff(wantPair, got.Pair, compare); d != "" {
		t.Errorf("pair (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want, got.Addresses, compare); d != "" {
		t.Errorf("addresses (-want +got):\n%s", d)
	}

	for listen, want := range map[string]string{
		"10.0.0.100:80": "front", "10.0.0.11:80": "", ":80": "", "0.0.0.0:80": "", "[fe80::100%eth0]:80": "front", "[fe80::100%eth1]:80": "second", "[fe80::100%eth9]:80": "",
		"unix:/run/x": "", "192.0.2.0:1": "second",
	} {
		name := ""
		if g, ok := got.Group(mustListen(listen)); ok {
			name = g.Name
		}
		if name != want {
			t.Errorf("%s is of group %q, want %q", listen, name, want)
		}
	}
	if s := got.ServicesOf(&got.Addresses[0]); !slices.Equal(s, []int{0}) {
		t.Errorf("services of front: %v", s)
	}
	if s := got.ServicesOf(&got.Addresses[1]); s != nil {
		t.Errorf("services of second: %v", s)
	}
}

// TestNoServices says what a node without services needs.
func TestNoServices(t *testing.T) {
	c := parse(t, "addresses: [{name: a, interface: eth0, addresses: [10.0.0.100/24]}]\n")
	if len(c.Services) != 0 || len(c.Addresses) != 1 || c.Addresses[0].VRRP != nil || c.Pair != nil {
		t.Errorf("%+v", c)
	}
}

// TestShared says that both nodes of a pair find the same parts alike: what may
// differ from node to node does not count, whatever must not does.
func TestShared(t *testing.T) {
	one := readGood(t, "pair.yaml")
	parts := func(text string) map[string]string {
		all := make(map[string]string)
		last := ""
		for _, p := range parse(t, text).Shared() {
			if p.Name <= last || len(p.Digest) != 12 {
				t.Errorf("part %+v behind %s", p, last)
			}
			all[p.Name], last = p.Digest, p.Name
		}
		return all
	}
	change := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(one) }
	first := parts(one)
	if len(first) != 5 {
		t.Errorf("the parts are %v", first)
	}
	other := change("lb1", "lb2", "priority: 255", "priority: 1", "10.0.0.11:7420", "10.0.0.12:7420", "peer: 10.0.0.12:7420", "peer: 10.0.0.11:7420", "interface: eth0", "interface: ens3",
		"%eth0", "%ens3", "peers: [10.0.0.12", "peers: [10.0.0.13", "preempt: true", "preempt: true # so", "500ms", "1s", "  - 10.0.0.100/24\n  - 10.0.0.101/32", "  - 10.0.0.101/32\n  - 10.0.0.100/24")
	for name, digest := range parts(other) {
		if strings.HasPrefix(name, "addresses.") && digest != first[name] {
			t.Errorf("%s differs, and need not be alike", name)
		}
	}
	for part, text := range map[string]string{
		"addresses.front":  change("10.0.0.101/32", "10.0.0.102/32"),
		"addresses.second": change("id: 51, priority", "id: 52, priority"),
		"addresses.lone":   change("198.51.100.7/32", "198.51.100.7/24"),
		"pair.witness":     change("witness: 10.0.0.1", "witness: 10.0.0.2"),
		"services.web":     change("backends: []", "backends: [{address: 10.0.0.1:80}]"),
	} {
		for name, digest := range parts(text) {
			if (name == part) != (digest != first[name]) {
				t.Errorf("after a change of %s, %s is %s, and was %s", part, name, digest, first[name])
			}
		}
	}
	if d := cmp.Diff(first, parts(one)); d != "" {
		t.Errorf("twice the same file: %s", d)
	}
}
