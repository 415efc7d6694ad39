package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-net/holdfast/balance"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/relay"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// names is a name server for tests.
func names(answers map[string][]string) lookup {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		var list []netip.Addr
		for _, a := range answers[host] {
			list = append(list, netip.MustParseAddr(a))
		}
		if _, ok := answers[host]; !ok {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return list, nil
	}
}

func TestResolve(t *testing.T) {
	c := parse(t, `
services:
  - name: redis
    listen: ["10.0.0.100:6379", "[2001:db8::100]:6379", "unix:/run/redis.sock"]
    balance: source-hash
    backends:
      - {name: r1, address: redis-1.example:6379, weight: 50, max_connections: 7, backup: true}
      - {address: "unix:/run/r2.sock", weight: 0}
      - {address: "[2001:db8::3]:6379"}
    health: {exchange: {send: "PING\r\n", expect: "+PONG", port: 6380, address: 10.9.9.9}, interval: 2s, timeout: 500ms, fall: 4, rise: 5}
    on_backend_lost: drain
    drain: {timeout: 30s, idle: 1s}
    connect_timeout: 1s
    idle_timeout: 1h
    dead_peer_timeout: 0s
    allow: [10.0.0.0/8, "2001:db8::/32"]
  - name: web
    listen: ":80"
    backends:
      - {name: w1, address: 10.0.0.31:80}
    health: {http: {path: /healthz, status: "200", host: x, tls: {server_name: y}}}
  - name: plain
    listen: "10.0.0.100:81"
    backends: []
    health: {none: {}}
`)
	got, err := resolve(t.Context(), c, names(map[string][]string{"redis-1.example": {"10.0.0.21", "2001:db8::21"}}))
	if err != nil {
		t.Fatal(err)
	}
	address := relay.MustParseAddress
	web := []relay.Address{address("0.0.0.0:80")}
	if hasIPv6() {
		web = append(web, address("[::]:80"))
	}
	want := []ServiceOptions{
		{
			Relay: relay.ServiceOptions{
				Name: "redis", Balance: balance.SourceHash, OnBackendLost: relay.LostDrain,
				Listen: []relay.Address{address("10.0.0.100:6379"), address("[2001:db8::100]:6379"), address("unix:/run/redis.sock")},
				Backends: []relay.Backend{
					{Name: "r1", Address: address("10.0.0.21:6379"), Weight: 50, MaxConnections: 7, Backup: true},
					{Name: "unix:/run/r2.sock", Address: address("unix:/run/r2.sock")},
					{Name: "[2001:db8::3]:6379", Address: address("[2001:db8::3]:6379"), Weight: 100},
				},
				Drain:          relay.Drain{Timeout: 30 * time.Second, Idle: time.Second},
				ConnectTimeout: time.Second, IdleTimeout: time.Hour, DeadPeerTimeout: -1,
				Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
			},
			Check: health.Check{
				Kind: health.Exchange, Exchange: health.ExchangeCheck{Send: "PING\r\n", Expect: "+PONG"}, Port: 6380, Address: "10.9.9.9",
				Interval: 2 * time.Second, Timeout: 500 * time.Millisecond, Fall: 4, Rise: 5,
			},
			Hosts: map[string]Host{"r1": {
				Name: "redis-1.example:6379", Addresses: []relay.Address{address("10.0.0.21:6379"), address("[2001:db8::21]:6379")},
			}},
		},
		{
			Relay: relay.ServiceOptions{
				Name: "web", Listen: web, Backends: []relay.Backend{{Name: "w1", Address: address("10.0.0.31:80"), Weight: 100}},
				ConnectTimeout: 3 * time.Second, DeadPeerTimeout: 15 * time.Second,
			},
			Check: health.Check{
				Kind: health.HTTP, HTTP: health.HTTPCheck{Path: "/healthz", Status: "200", Host: "x"}, TLS: health.TLS{Enabled: true, ServerName: "y"},
				Interval: time.Second, Timeout: time.Second, Fall: 3, Rise: 2,
			},
			Hosts: map[string]Host{},
		},
		{
			Relay: relay.ServiceOptions{
				Name: "plain", Listen: []relay.Address{address("10.0.0.100:81")}, ConnectTimeout: 3 * time.Second, DeadPeerTimeout: 15 * time.Second,
			},
			Check: health.Check{Kind: health.None, Interval: time.Second, Timeout: time.Second, Fall: 3, Rise: 2},
			Hosts: map[string]Host{},
		},
	}
	same := cmp.Comparer(func(a, b relay.Address) bool { return a == b })
	prefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	empty := cmp.Transformer("empty", func(l []relay.Backend) []any {
		list := []any{}
		for _, b := range l {
			list = append(list, b)
		}
		return list
	})
	noCallback := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".OnEvidence" }, cmp.Ignore())
	if d := cmp.Diff(want, got, same, prefix, empty, noCallback); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// Backend legs are bound to what another node of a pair may take over, and to
// nothing else.
func TestResolveGroups(t *testing.T) {
	const text = `
addresses:
  - {name: front, interface: eth0, addresses: [10.0.0.100/24, "2001:db8::100/64", "fe80::100/64"], vrrp: {id: 51}}
  - {name: own, interface: eth0, addresses: [10.0.0.101/24]}
services:
  - name: a
    listen: 10.0.0.100:80
    backends: [{address: 10.0.0.21:80}]
`
	for _, tt := range []struct {
		pair string
		want [][]netip.Addr
	}{
		{"", nil},
		{"pair: {listen: 10.0.0.11:7420, peer: 10.0.0.12:7420, keys: /etc/holdfast/pair}\n", [][]netip.Addr{{netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("2001:db8::100")}}},
	} {
		got, err := resolve(t.Context(), parse(t, tt.pair+text), names(nil))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, got[0].Relay.Groups, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("pair %q (-want +got)\n%s", tt.pair, d)
		}
		if len(got[0].Relay.Floating) != 4 {
			t.Errorf("floating %v", got[0].Relay.Floating)
		}
	}
}

// Everything that this machine lacks is said at once, each with its place.
func TestResolveFails(t *testing.T) {
	c := parse(t, `services:
  - name: a
    listen: 127.0.0.1:1000
    backends:
      - {name: a1, address: 127.0.0.1:1}
      - {name: a2, address: nowhere.example:80}
      - {name: a3, address: empty.example:80}
  - name: b
    listen: 127.0.0.1:1001
    backends:
      - {name: b1, address: 127.0.0.1:2}
    health: {command: {argv: [no-such-program]}}
`)
	_, err := resolve(t.Context(), c, names(map[string][]string{"empty.example": nil}))
	list, ok := errors.AsType[config.Errors](err)
	if !ok || len(list) != 3 {
		t.Fatalf("%v", err)
	}
	for i, want := range []string{
		`test.yaml:6:29: services[0].backends[1].address: host name "nowhere.example" cannot be looked up: no such host; correct it, or write an IP address`,
		`test.yaml:7:29: services[0].backends[2].address: host name "empty.example" cannot be looked up: the name has no address; `,
		`test.yaml:12:13: services[1].health: Command.Argv: exec: "no-such-program": executable file not found in $PATH`,
	} {
		if !strings.HasPrefix(list[i].Error(), want) {
			t.Errorf("got  %v\nwant %s", list[i], want)
		}
	}
	const excerpt = "    6 |       - {name: a2, address: nowhere.example:80}\n      |                             ^"
	if list[0].Excerpt != excerpt {
		t.Errorf("got\n%s\nwant\n%s", list[0].Excerpt, excerpt)
	}
}

// A name server that does not answer holds a reload up for a bounded time, and
// each name is asked for once.
func TestResolveInTime(t *testing.T) {
	c := parse(t, `services:
  - name: a
    listen: 127.0.0.1:1000
    backends:
      - {name: a1, address: silent.example:80}
      - {name: a2, address: silent.example:81}
`)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), lookupTimeout)
		defer cancel()
		began := time.Now()
		var asked atomic.Int32
		_, err := resolve(ctx, c, func(ctx context.Context, host string) ([]netip.Addr, error) {
			asked.Add(1)
			<-ctx.Done()
			return nil, &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
		})
		if err == nil || !strings.Contains(err.Error(), "did not answer within 5s") || time.Since(began) != lookupTimeout || asked.Load() != 1 {
			t.Errorf("after %v and %d questions: %v", time.Since(began), asked.Load(), err)
		}
	})
}
