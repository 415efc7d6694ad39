package daemon

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/relay"
)

// do gives a command about a backend of the service echo, which must succeed.
func (r *running) do(t *testing.T, backend, what string, weight int, want string) admin.BackendResult {
	t.Helper()
	got, err := r.ChangeBackend("echo", backend, admin.BackendCommand{Do: what, Weight: weight}, "uid 1000 (pid 4711)")
	if err != nil {
		t.Fatalf("%s %s: %v", what, backend, err)
	}
	if got.Text != want {
		t.Errorf("%s %s: %q, want %q", what, backend, got.Text, want)
	}
	return got
}

// twoBackends is a service with two echo servers, and runs.
func twoBackends(t *testing.T, host string) (*running, ServiceOptions) {
	t.Helper()
	b1, b2 := startBackend(t, host), startBackend(t, host)
	o := with(echoService(b1, host),
		relay.Backend{Name: "b1", Address: b1.address(), Weight: 100},
		relay.Backend{Name: "b2", Address: b2.address(), Weight: 0})
	return start(t, o), o
}

// Commands act at once, are told of as by hand, and last over reloads until the
// file changes that key.
func TestCommands(t *testing.T) {
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			r, o := twoBackends(t, host)
			client := r.connect(t) // on b1
			r.do(t, "b2", admin.DoWeight, 20, "backend b2 of service echo has weight 20 (the file says 0)")
			if got := r.do(t, "b1", admin.DoDrain, 0, "backend b1 of service echo is drained; 1 connection is left"); got.Connections != 1 {
				t.Errorf("%+v", got)
			}
			r.do(t, "b1", admin.DoDrain, 0, "backend b1 of service echo already is drained; 1 connection is left")
			exchange(t, client)
			r.connect(t)
			b1, b2 := r.backendOf(t, "b1"), r.backendOf(t, "b2")
			if b1.State != "drain" || b1.Weight != 0 || b1.Active != 1 || b1.ByHand == nil || b1.ByHand.What != "drain" ||
				b1.ByHand.FileWeight != 100 || b1.ByHand.By != "uid 1000 (pid 4711)" || time.Since(b1.ByHand.Since) > time.Minute {
				t.Errorf("b1: %+v, by hand %+v", b1, b1.ByHand)
			}
			if b2.Weight != 20 || b2.Active != 1 || b2.ByHand == nil || b2.ByHand.What != "weight" {
				t.Errorf("b2: %+v, by hand %+v", b2, b2.ByHand)
			}

			o.Relay.Drain.Timeout = time.Hour
			r.apply(t, []string{"service echo: drain.timeout 0s -> 1h0m0s"}, o)
			if got := r.backendOf(t, "b1"); got.Weight != 0 || got.ByHand == nil {
				t.Errorf("after a reload that says nothing of it: %+v", got)
			}
			o.Relay.Backends[0].Weight = 70
			r.apply(t, []string{"service echo: weight of b1 0, by hand -> 70, as the file says"}, o)
			if got := r.backendOf(t, "b1"); got.Weight != 70 || got.ByHand != nil || got.State != "up" {
				t.Errorf("after a reload that changes it: %+v", got)
			}
			r.do(t, "b2", admin.DoResume, 0, "backend b2 of service echo is drained, as the file says; 1 connection is left")

			if got := r.do(t, "b1", admin.DoReset, 0, "1 connection of backend b1 of service echo was told"); got.Connections != 1 {
				t.Errorf("%+v", got)
			}
			isReset(t, client)
			if got := r.backendOf(t, "b1"); got.Weight != 70 {
				t.Errorf("after a reset: %+v", got)
			}
			r.events.await(t, `"state":"drain","reason":"backend b1 of service echo is drained; 1 connection is left","by_hand":"uid 1000 (pid 4711)","weight":0`)
			r.events.await(t, `"state":"reset"`)
			r.events.await(t, `"detail":"backend reset by command"`)
			r.log.await(t, "changed by hand")
		})
	}
}

// A removed backend gets nobody, keeps whom it has while they live, is not
// checked, and stays removed until it is resumed or its entry changes.
func TestCommandRemove(t *testing.T) {
	r, o := twoBackends(t, "127.0.0.1:0")
	client := r.connect(t)
	r.do(t, "b1", admin.DoRemove, 0, "backend b1 of service echo is removed; 1 connection is left")
	r.log.await(t, "every backend is drained")
	exchange(t, client)
	if err := tryOnce(r.address()); err == nil {
		t.Error("a client was served without a backend")
	}
	if got := r.backendOf(t, "b1"); !got.Removed || got.Active != 1 || got.ByHand == nil || got.ByHand.What != "remove" {
		t.Errorf("while it has a connection: %+v", got)
	}
	_, err := r.ChangeBackend("echo", "b1", admin.BackendCommand{Do: admin.DoDrain}, "")
	if refused, ok := errors.AsType[*admin.Error](err); !ok || refused.Code != admin.CodeRefused {
		t.Errorf("draining a removed backend: %v", err)
	}
	r.do(t, "b1", admin.DoReset, 0, "1 connection of backend b1 of service echo was told")
	isReset(t, client)
	await(t, "the removed backend is gone", func() bool { return r.backendOf(t, "b1").Name == "" })
	r.apply(t, []string{}, o)
	if got := r.backendOf(t, "b1"); got.Name != "" {
		t.Errorf("after a reload that says the same: %+v", got)
	}
	r.do(t, "b1", admin.DoResume, 0, "backend b1 of service echo has the file's weight of 100")
	r.connect(t)
	await(t, "it is checked again", func() bool { return r.backendOf(t, "b1").Check.Checks > 0 })
	if list, err := r.Backends(admin.Filter{}); err != nil || len(list) != 2 || list[0].Name != "b1" {
		t.Errorf("the order of the file: %+v, %v", list, err)
	}

	r.do(t, "b1", admin.DoRemove, 0, "backend b1 of service echo is removed; 1 connection is left")
	o.Relay.Backends[0].MaxConnections = 9
	r.apply(t, []string{fmt.Sprintf("service echo: backend b1 added (%v, weight 100, max_connections 9), no longer removed by hand", o.Relay.Backends[0].Address)}, o)
}

// What is asked of something that is not there is answered with what is.
func TestUnknown(t *testing.T) {
	r, o := twoBackends(t, "127.0.0.1:0")
	client := r.connect(t)
	r.apply(t, []string{fmt.Sprintf("service echo: backend b1 removed (%v)", o.Relay.Backends[0].Address)}, with(o, o.Relay.Backends[1]))
	command := func(service, backend, do string) error {
		_, err := r.ChangeBackend(service, backend, admin.BackendCommand{Do: do}, "")
		return err
	}
	reset := func(f admin.Filter, ids ...uint64) error {
		_, err := r.ResetConnections(f, ids, "")
		return err
	}
	list := func(f admin.Filter) error {
		_, err := r.Services(f)
		_, backendsErr := r.Backends(f)
		if (err == nil) != (backendsErr == nil) {
			t.Errorf("%+v: of services %v, of backends %v", f, err, backendsErr)
		}
		return err
	}
	connections := func(f admin.Filter) error {
		_, err := r.Connections(f)
		return err
	}
	for i, tt := range []struct {
		err  error
		code string
		text string
	}{
		{command("echo", "b9", admin.DoDrain), admin.CodeUnknown, "there is no backend b9 in service echo; it has b2"},
		{command("web", "b1", admin.DoDrain), admin.CodeUnknown, "there is no service web; there is echo"},
		{command("echo", "b9", admin.DoReset), admin.CodeUnknown, "there is no backend b9"},
		{command("echo", "b1", admin.DoDrain), admin.CodeRefused, "backend b1 of service echo is no longer in the file: only its connections are left"},
		{command("echo", "b2", "explode"), admin.CodeInvalid, "explode"},
		{reset(admin.Filter{}), admin.CodeInvalid, "it is not said which connections to reset"},
		{reset(admin.Filter{Limit: 5}), admin.CodeInvalid, "it is not said which connections to reset"},
		{reset(admin.Filter{}, 4711), admin.CodeUnknown, "there is no connection 4711"},
		{reset(admin.Filter{Service: "web"}), admin.CodeUnknown, "there is no service web"},
		{reset(admin.Filter{Client: "nonsense"}), admin.CodeInvalid, "nonsense"},
		{list(admin.Filter{Service: "web"}), admin.CodeUnknown, "there is no service web"},
		{list(admin.Filter{Backend: "b9"}), admin.CodeUnknown, "there is no backend b9 in any service; they have b2"},
		{list(admin.Filter{Client: "nonsense"}), admin.CodeInvalid, "nonsense"},
		{list(admin.Filter{Limit: -1}), admin.CodeInvalid, "limit"},
		{connections(admin.Filter{Client: "10.0.0.0/33"}), admin.CodeInvalid, "10.0.0.0/33"},
		{connections(admin.Filter{Backend: "b9"}), admin.CodeUnknown, "b9"},
	} {
		if refused, ok := errors.AsType[*admin.Error](tt.err); !ok || refused.Code != tt.code || !strings.Contains(refused.Error(), tt.text) {
			t.Errorf("%d: %v, want %s: %s", i, tt.err, tt.code, tt.text)
		}
	}
	exchange(t, client)
	if err := list(admin.Filter{Backend: "b1"}); err != nil {
		t.Errorf("what is removed and has connections is unknown: %v", err)
	}
	if err := command("echo", "b1", admin.DoReset); err != nil {
		t.Error(err)
	}
	isReset(t, client)
}

// Connections are found, counted and reset by each part of a filter.
func TestConnections(t *testing.T) {
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			r, _ := twoBackends(t, host)
			first, second := r.connect(t), r.connect(t)
			all, err := r.Connections(admin.Filter{})
			if err != nil || len(all.Connections) != 2 || all.Matched != 2 || all.Total != 2 {
				t.Fatalf("%+v, %v", all, err)
			}
			c := all.Connections[0]
			if c.Service != "echo" || c.Backend != "b1" || c.State != "established" || c.Engine != "relay" || c.BytesIn != 6 || c.BytesOut != 6 ||
				c.Age <= 0 || c.Protected || c.ID >= all.Connections[1].ID {
				t.Errorf("%+v", c)
			}
			network := "127.0.0.0/8"
			if strings.HasPrefix(c.Client, "[") {
				network = "::/64"
			}
			for _, tt := range []struct {
				filter        admin.Filter
				found, passed int
				backends      int
			}{
				{admin.Filter{Service: "echo", Backend: "b1"}, 2, 2, 1},
				{admin.Filter{Backend: "b2"}, 0, 0, 1},
				{admin.Filter{Client: c.Client}, 1, 1, 1},
				{admin.Filter{Client: network}, 2, 2, 1},
				{admin.Filter{Client: network, Backend: "b2"}, 0, 0, 0},
				{admin.Filter{Client: network, Limit: 1}, 1, 2, 1},
				{admin.Filter{Client: "192.0.2.1"}, 0, 0, 0},
				{admin.Filter{Client: "unix"}, 0, 0, 0},
				{admin.Filter{Client: "fe80::1%lo"}, 0, 0, 0},
			} {
				backends, err := r.Backends(tt.filter)
				if err != nil || len(backends) != tt.backends {
					t.Errorf("%+v: backends %+v, %v; want %d", tt.filter, backends, err, tt.backends)
				}
				services, err := r.Services(tt.filter)
				if err != nil || len(services) != tt.backends { // of which each listing has one at most
					t.Errorf("%+v: services %+v, %v; want %d", tt.filter, services, err, tt.backends)
				}
				got, err := r.Connections(tt.filter)
				if err != nil || len(got.Connections) != tt.found || got.Matched != tt.passed || got.Total != 2 || got.Connections == nil {
					t.Errorf("%+v: %+v, %v", tt.filter, got, err)
				}
			}
			if n, err := r.ResetConnections(admin.Filter{Client: "fe80::1%lo"}, nil, "me"); n != 0 || err != nil {
				t.Errorf("a client that is not there: %d, %v", n, err)
			}
			if n, err := r.ResetConnections(admin.Filter{}, []uint64{c.ID}, "uid 0"); n != 1 || err != nil {
				t.Errorf("by id: %d, %v", n, err)
			}
			isReset(t, first)
			exchange(t, second)
			if n, err := r.ResetConnections(admin.Filter{Client: network}, nil, "uid 0"); n != 1 || err != nil {
				t.Errorf("by client: %d, %v", n, err)
			}
			isReset(t, second)
			r.events.await(t, `"event":"reset",`)
			r.events.await(t, `"reason":"1 connection was told by command","by_hand":"uid 0","count":1}`)
			if got := r.Totals().ByCause["operator"]; got != 2 {
				t.Errorf("%d ends by an operator, want 2", got)
			}
			ends := r.Ends()
			if len(ends) != 1 || ends[0].Service != "echo" || ends[0].Cause != "operator" || ends[0].By != "holdfast" || ends[0].Count != 2 ||
				ends[0].ToldClient != 2 || ends[0].ToldBackend != 2 {
				t.Errorf("ends %+v", ends)
			}
		})
	}
}
