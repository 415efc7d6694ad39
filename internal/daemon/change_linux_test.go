package daemon

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/balance"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/relay"
)

// example is a file with two services.
func example() []version {
	address := relay.MustParseAddress
	return []version{
		{ServiceOptions: ServiceOptions{Relay: relay.ServiceOptions{
			Name: "redis", Listen: []relay.Address{address("10.0.0.100:6379")},
			Backends: []relay.Backend{
				{Name: "r1", Address: address("10.0.0.21:6379"), Weight: 100},
				{Name: "r2", Address: address("[2001:db8::22]:6379"), Weight: 100},
			},
		}}},
		{ServiceOptions: ServiceOptions{Relay: relay.ServiceOptions{
			Name: "web", Listen: []relay.Address{address("10.0.0.100:80"), address("[2001:db8::100]:80")},
			Backends: []relay.Backend{{Name: "w1", Address: address("10.0.0.31:80"), Weight: 100}},
		}}},
	}
}

// clone copies what a test case changes.
func clone(list []version) []version {
	list = slices.Clone(list)
	for i := range list {
		list[i].Relay.Backends = slices.Clone(list[i].Relay.Backends)
	}
	return list
}

func TestDifferences(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after func(f []version) []version
		want          []string
	}{
		"nothing": {},
		"what is a default may be said": {
			after: func(f []version) []version {
				f[0].Relay.ConnectTimeout = relay.DefaultConnectTimeout
				f[0].Relay.DeadPeerTimeout = relay.DefaultDeadPeerTimeout
				f[0].Check = health.Check{Interval: time.Second, Timeout: time.Second, Fall: 3, Rise: 2}
				return f
			},
		},
		"services come and go": {
			after: func(f []version) []version {
				f[1].Relay.Name = "www"
				return f
			},
			want: []string{"service www added (listens on 10.0.0.100:80 and [2001:db8::100]:80, 1 backend)", "service web removed"},
		},
		"backends": {
			after: func(f []version) []version {
				b := f[0].Relay.Backends
				b[0].Weight, b[0].MaxConnections, b[0].Backup = 50, 200, true
				b[1].Name = "r3"
				f[1].Relay.Backends[0].Address = relay.MustParseAddress("unix:/run/w1.sock")
				return f
			},
			want: []string{
				"service redis: weight of r1 100 -> 50",
				"service redis: max_connections of r1 0 -> 200",
				"service redis: backup of r1 false -> true",
				"service redis: backend r3 added ([2001:db8::22]:6379, weight 100)",
				"service redis: backend r2 removed ([2001:db8::22]:6379)",
				"service web: address of w1 10.0.0.31:80 -> unix:/run/w1.sock",
			},
		},
		"the order of backends is none": {
			after: func(f []version) []version {
				slices.Reverse(f[0].Relay.Backends)
				return f
			},
		},
		"settings": {
			after: func(f []version) []version {
				o := &f[1].Relay
				o.Listen = o.Listen[:1]
				o.Balance, o.OnBackendLost = balance.SourceHash, relay.LostDrain
				o.Drain = relay.Drain{Timeout: 30 * time.Second, Idle: time.Second}
				o.ConnectTimeout, o.IdleTimeout, o.DeadPeerTimeout = time.Second, time.Minute, -1
				o.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
				f[1].Check = health.Check{Interval: 2 * time.Second, Fall: 5}
				return f
			},
			want: []string{
				"service web: listen 10.0.0.100:80, [2001:db8::100]:80 -> 10.0.0.100:80",
				"service web: balance least-connections -> source-hash",
				"service web: health.interval 1s -> 2s",
				"service web: health.fall 3 -> 5",
				"service web: on_backend_lost reset -> drain",
				"service web: drain.timeout 0s -> 30s",
				"service web: drain.idle 0s -> 1s",
				"service web: connect_timeout 3s -> 1s",
				"service web: idle_timeout 0s -> 1m0s",
				"service web: dead_peer_timeout 15s -> 0s",
				"service web: allow all -> 10.0.0.0/8, 2001:db8::/32",
			},
		},
		"another check": {
			after: func(f []version) []version {
				f[0].Check = health.Check{Port: 8008}
				f[1].Check = health.Check{Kind: health.HTTP}
				return f
			},
			want: []string{"service redis: health tcp -> tcp with other settings", "service web: health tcp -> http"},
		},
		"the file takes back what was set by hand": {
			before: func(f []version) []version {
				f[0].hands = hands{
					"r1": {what: admin.DoDrain, file: f[0].backends()[0]}, "r2": {what: admin.DoRemove, file: f[0].backends()[1]},
				}
				f[1].hands = hands{"w1": {what: admin.DoWeight, weight: 50, file: f[1].backends()[0]}}
				return f
			},
			after: func(f []version) []version {
				f[0].Relay.Backends[0].Weight, f[0].Relay.Backends[1].Weight, f[1].Relay.Backends[0].Weight = 10, 20, 50
				return f
			},
			want: []string{
				"service redis: weight of r1 0, by hand -> 10, as the file says",
				"service redis: backend r2 added ([2001:db8::22]:6379, weight 20), no longer removed by hand",
				"service web: weight of w1 stays 50, as the file says, no longer by hand",
			},
		},
		"what was set by hand stays": {
			before: func(f []version) []version {
				f[0].hands = hands{"r1": {what: admin.DoDrain, file: f[0].backends()[0]}, "r2": {what: admin.DoRemove, file: f[0].backends()[1]}}
				return f
			},
			after: func(f []version) []version {
				f[0].hands = hands{"r1": {what: admin.DoDrain, file: f[0].backends()[0]}, "r2": {what: admin.DoRemove, file: f[0].backends()[1]}}
				f[0].Relay.Backends[0].MaxConnections = 5
				return f
			},
			want: []string{"service redis: max_connections of r1 0 -> 5"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := clone(example()), clone(example())
			if tt.before != nil {
				before = tt.before(before)
			}
			if tt.after != nil {
				after = tt.after(after)
			}
			list := differences(before, after)
			if d := cmp.Diff(tt.want, sentences(list), cmp.Transformer("empty", func(s []string) []string { return append([]string{}, s...) })); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			for _, c := range list {
				if c.event.Service == "" || c.event.State == "" || c.event.Reason != c.text {
					t.Errorf("the event of %q is %+v %+v", c.text, c.event, c.event.Change)
				}
			}
		})
	}
}

// A backend stays where it is as long as its host name still stands for that.
func TestKeepAddresses(t *testing.T) {
	a, b := relay.MustParseAddress("10.0.0.1:80"), relay.MustParseAddress("10.0.0.2:80")
	service := func(name string, addresses ...relay.Address) ServiceOptions {
		return ServiceOptions{
			Relay: relay.ServiceOptions{Backends: []relay.Backend{{Name: "w1", Address: addresses[0]}}},
			Hosts: map[string]Host{"w1": {Name: name, Addresses: addresses}},
		}
	}
	for name, tt := range map[string]struct {
		now  ServiceOptions
		want relay.Address
	}{
		"another order":     {service("w.example:80", b, a), a},
		"it moved":          {service("w.example:80", b), b},
		"another host name": {service("x.example:80", b, a), b},
	} {
		given := tt.now.Relay.Backends[0].Address
		got := keepAddresses(service("w.example:80", a, b), tt.now)
		if got.Relay.Backends[0].Address != tt.want {
			t.Errorf("%s: %v, want %v", name, got.Relay.Backends[0].Address, tt.want)
		}
		if tt.now.Relay.Backends[0].Address != given {
			t.Errorf("%s: the caller's backends were changed", name)
		}
	}
}
