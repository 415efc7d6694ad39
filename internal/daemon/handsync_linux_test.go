package daemon

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// TestHandsOfTheOtherNode has two daemons with the same file: what a command sets
// at one is taken at the other, for as long as its file says what it said.
func TestHandsOfTheOtherNode(t *testing.T) {
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			one, o := twoBackends(t, host)
			two := start(t, again(o))
			pass := func(changes bool) {
				t.Helper()
				for _, h := range one.Hands() {
					text, err := json.Marshal(h)
					if err != nil {
						t.Fatal(err)
					}
					there := Hand{Service: h.Service, Backend: h.Backend}
					if err := json.Unmarshal(text, &there); err != nil {
						t.Fatal(err)
					}
					if changed, err := two.TakeHand(there); err != nil || changed != changes {
						t.Errorf("%+v: changed %t, %v, want %t", there, changed, err, changes)
					}
				}
			}
			one.do(t, "b1", admin.DoWeight, 7, "backend b1 of service echo has weight 7 (the file says 100)")
			pass(true)
			pass(false)
			b := two.backendOf(t, "b1")
			if b.Weight != 7 || b.ByHand == nil || b.ByHand.By != "uid 1000 (pid 4711)" || b.ByHand.Since.IsZero() || b.ByHand.FileWeight != 100 {
				t.Errorf("at the other node: %+v, by hand %+v", b, b.ByHand)
			}
			if _, err := one.ChangeBackend("echo", "b1", admin.BackendCommand{Do: admin.DoRemove}, "me"); err != nil {
				t.Fatal(err)
			}
			pass(true)
			if b := two.backendOf(t, "b1"); b.Name != "" { // nothing is left of it
				t.Errorf("a backend that was removed: %+v", b)
			}
			one.do(t, "b1", admin.DoResume, 0, "backend b1 of service echo has the file's weight of 100")
			if changed, err := two.DropHand("echo", "b1", "me"); err != nil || !changed {
				t.Errorf("resume: changed %t, %v", changed, err)
			}
			if b := two.backendOf(t, "b1"); b.Weight != 100 || b.ByHand != nil {
				t.Errorf("after resume: %+v", b)
			}

			// The other node's file says something else of the backend by now.
			changed := again(o)
			changed.Relay.Backends[0].Weight = 50
			if _, err := two.Apply([]ServiceOptions{changed}); err != nil {
				t.Fatal(err)
			}
			one.do(t, "b1", admin.DoWeight, 9, "backend b1 of service echo has weight 9 (the file says 100)")
			pass(false)
			if b := two.backendOf(t, "b1"); b.Weight != 50 {
				t.Errorf("the file was overridden: %+v", b)
			}
			for _, h := range []Hand{{Service: "echo", Backend: "nobody"}, {Service: "nothing", Backend: "b1"}} {
				if changed, err := two.TakeHand(h); changed || err != nil {
					t.Errorf("%+v: changed %t, %v", h, changed, err)
				}
			}
			if _, err := two.TakeHand(Hand{Service: "echo", Backend: "b1", What: "sing", FileWeight: 50}); err == nil || !strings.Contains(err.Error(), "does not know") {
				t.Errorf("a command that this version does not know: %v", err)
			}
		})
	}
}

// again is the same service, to be changed.
func again(o ServiceOptions) ServiceOptions {
	o.Relay.Backends = append(o.Relay.Backends[:0:0], o.Relay.Backends...)
	return o
}

// TestAddressesOfADaemon counts, waits for and tells connections by the address
// that they came to.
func TestAddressesOfADaemon(t *testing.T) {
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			r, _ := twoBackends(t, host)
			at, err := netip.ParseAddrPort(r.address())
			if err != nil {
				t.Fatal(err)
			}
			here, elsewhere := []netip.Addr{at.Addr()}, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
			client := r.connect(t)
			exchange(t, client)
			if n := r.CountAddresses(here); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
			began := time.Now()
			r.DrainAddresses(t.Context(), elsewhere)
			if took := time.Since(began); took < drainAtLeast {
				t.Errorf("it waited %v for nobody, at least %v are for those on their way", took, drainAtLeast)
			}
			if n := r.ResetAddresses(elsewhere, "a test"); n != 0 {
				t.Errorf("%d connections of other addresses were told", n)
			}
			exchange(t, client)
			drained := make(chan struct{})
			go func() {
				defer close(drained)
				r.DrainAddresses(t.Context(), here)
			}()
			if n := r.ResetAddresses(here, "a test"); n != 1 {
				t.Errorf("%d connections were told, want 1", n)
			}
			isReset(t, client)
			select {
			case <-drained:
			case <-time.After(10 * time.Second):
				t.Error("it still waits for a connection that has ended")
			}
		})
	}
}
