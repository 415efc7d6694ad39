//go:build linux

package relay

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// TestWalk has pairs come and go between the steps of several walks: each walk
// meets whatever lives through it once, in order, and nothing twice.
func TestWalk(t *testing.T) {
	r, err := New(Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := r.loops[0]
	rapid.Check(t, func(t *rapid.T) {
		type observed struct {
			met     []uint64
			through map[uint64]bool // there when it began, and not gone since
			done    bool
		}
		var alive []*pair
		var walks []*observed
		remove := func(i int) {
			p := alive[i]
			alive = slices.Delete(alive, i, i+1)
			l.pairs.remove(p)
			for _, w := range walks {
				if !w.done {
					delete(w.through, p.id)
				}
			}
		}
		for range rapid.IntRange(1, 120).Draw(t, "operations") {
			switch rapid.IntRange(0, 9).Draw(t, "operation") {
			case 0, 1, 2, 3:
				p := &pair{id: r.lastID.Add(1)}
				l.pairs.add(p)
				alive = append(alive, p)
			case 4, 5:
				if len(alive) > 0 {
					remove(rapid.IntRange(0, len(alive)-1).Draw(t, "which"))
				}
			case 6:
				o := &observed{through: map[uint64]bool{}}
				for _, p := range alive {
					o.through[p.id] = true
				}
				walks = append(walks, o)
				ends := rapid.IntRange(0, 5).Draw(t, "every how many it ends")
				(&walk{
					loop: l, chain: &l.pairs, size: rapid.IntRange(0, 4).Draw(t, "step"),
					visit: func(p *pair) {
						o.met = append(o.met, p.id)
						if ends > 0 && p.id%uint64(ends) == 0 {
							met := o.through[p.id]
							remove(slices.Index(alive, p))
							if met {
								o.through[p.id] = true // it was met before it went
							}
						}
					},
					done: func() { o.done = true },
				}).begin()
			default:
				l.obey() // one step of every walk
			}
		}
		for len(alive) > 0 && rapid.Bool().Draw(t, "some go at the end") {
			remove(0)
		}
		for range 200 {
			l.obey()
		}
		for i, o := range walks {
			if !o.done {
				t.Fatalf("walk %d has not ended", i)
			}
			if !slices.IsSorted(o.met) || len(slices.Compact(slices.Clone(o.met))) != len(o.met) {
				t.Fatalf("walk %d met %v", i, o.met)
			}
			for id := range o.through {
				if !slices.Contains(o.met, id) {
					t.Fatalf("walk %d did not meet %d, it met %v", i, id, o.met)
				}
			}
		}
		if len(l.pairs.walks) > 0 {
			t.Fatalf("%d walks are still known", len(l.pairs.walks))
		}
		for len(alive) > 0 {
			remove(0)
		}
		if l.pairs.first != nil || l.pairs.last != nil {
			t.Fatal("the chain is not empty")
		}
	})
}

// TestListingUnderChurn lists again and again while clients come and go: those
// that stay are in every list, once.
func TestListingUnderChurn(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g := newRig(t)
		s := g.service(t, host, ServiceOptions{}, echo(t, host))
		at := s.Addrs()[0]
		const stay = 3 * lookStep
		for range stay {
			dial(t, at)
		}
		for s.Counts().Active != stay {
			<-time.After(time.Millisecond)
		}
		list, _, _ := g.Connections(Filter{})
		var ids []uint64
		for _, c := range list {
			ids = append(ids, c.ID)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var errs errorsOf
		made := make(chan int)
		go func() { made <- load(ctx, 1000, func() Address { return at }, &errs) }()
		var last BackendStatus
		most := 0
		for began := time.Now(); time.Since(began) < 2*time.Second; {
			list, matched, total := g.Connections(Filter{})
			if matched != len(list) || total != len(list) {
				t.Fatalf("%d are listed, %d matched of %d", len(list), matched, total)
			}
			if !slices.IsSortedFunc(list, func(a, b Connection) int { return cmp.Compare(a.ID, b.ID) }) {
				t.Fatal("the list is not by id")
			}
			seen := map[uint64]bool{}
			for _, c := range list {
				if seen[c.ID] {
					t.Fatalf("%d is listed twice", c.ID)
				}
				seen[c.ID] = true
			}
			for _, id := range ids {
				if !seen[id] {
					t.Fatalf("%d is missing", id)
				}
			}
			now := s.Backends()[0]
			if now.Active < stay || now.BytesIn < last.BytesIn || now.BytesOut < last.BytesOut || now.Total < last.Total {
				t.Fatalf("the backend was %+v, and is %+v", last, now)
			}
			last = now
			most = max(most, total)
		}
		cancel()
		if n := <-made; errs.n > 0 || most == stay {
			t.Errorf("%d of %d connections met errors, at most %d were seen at once: %v", errs.n, n, most, errs.some)
		}
	})
}

// TestFilters lists and resets a part of the connections.
func TestFilters(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		front := MustParseAddress("unix:" + filepath.Join(t.TempDir(), "s"))
		one := g.service(t, host, ServiceOptions{Name: "one", Listen: []Address{MustParseAddress(host + ":0"), front}}, b.addr())
		two := g.service(t, host, ServiceOptions{Name: "two"}, refusing(t, host), b.addr())
		var conns []net.Conn
		for _, a := range []Address{one.Addrs()[0], one.Addrs()[0], front, two.Addrs()[0], two.Addrs()[0]} {
			c := dial(t, a)
			pass(t, c, b.next(t), []byte("x"))
			conns = append(conns, c)
		}
		local := netip.MustParseAddrPort(conns[1].LocalAddr().String())
		network := netip.PrefixFrom(local.Addr(), local.Addr().BitLen()-8)
		for name, tt := range map[string]struct {
			f             Filter
			list, matched int
		}{
			"everything":         {Filter{}, 5, 5},
			"a service":          {Filter{Service: "one"}, 3, 3},
			"no such service":    {Filter{Service: "three"}, 0, 0},
			"a backend":          {Filter{Backend: "b2"}, 2, 2},
			"both":               {Filter{Service: "one", Backend: "b2"}, 0, 0},
			"an address":         {Filter{Client: netip.PrefixFrom(local.Addr(), local.Addr().BitLen())}, 4, 4},
			"a network":          {Filter{Client: network}, 4, 4},
			"another network":    {Filter{Client: netip.MustParsePrefix("192.0.2.0/24")}, 0, 0},
			"an address, a port": {Filter{Client: network, Port: local.Port()}, 1, 1},
			"unix clients":       {Filter{Unix: true}, 1, 1},
			"the oldest two":     {Filter{Limit: 2}, 2, 5},
			"the oldest of two":  {Filter{Service: "two", Limit: 1}, 1, 2},
		} {
			list, matched, total := g.Connections(tt.f)
			if len(list) != tt.list || matched != tt.matched || total != 5 {
				t.Errorf("%s: %d of %d of %d, want %d of %d of 5", name, len(list), matched, total, tt.list, tt.matched)
			}
			if tt.f.Limit > 0 {
				all, _, _ := g.Connections(Filter{Service: tt.f.Service})
				for i := range list {
					if list[i].ID != all[i].ID {
						t.Errorf("%s: %d is not the oldest, %d is", name, list[i].ID, all[i].ID)
					}
				}
			}
		}
		list, _, _ := g.Connections(Filter{})
		if n := g.ResetConnections(Filter{}) + g.ResetConnections(Filter{Limit: 3}); n != 0 {
			t.Errorf("a filter that says nothing reset %d", n)
		}
		if n := g.ResetConnections(Filter{Service: "two"}, list[0].ID); n != 0 {
			t.Errorf("%d of another service were reset", n)
		}
		if n := g.ResetConnections(Filter{Service: "one", Limit: 1}); n != 1 {
			t.Errorf("%d were reset, want the oldest", n)
		}
		wantRST(t, conns[0])
		if n := g.ResetConnections(Filter{}, list[1].ID, list[3].ID, 12345); n != 2 {
			t.Errorf("%d were reset of two", n)
		}
		if n := g.ResetConnections(Filter{Unix: true}); n != 1 {
			t.Errorf("%d were reset of one", n)
		}
		if rest, _, _ := g.Connections(Filter{}); len(rest) != 1 || rest[0].ID != list[4].ID || rest[0].Service != "two" || g.Count() != 1 {
			t.Errorf("what is left is %+v, %d", rest, g.Count())
		}
	})
}

// TestCountsByState looks at a backend whose connections are in every state.
func TestCountsByState(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr(), newFullBackend(t, host))
		if err := s.MarkDown("b2", time.Now(), "test"); err != nil {
			t.Fatal(err)
		}
		var clients, servers []net.Conn
		for range 4 {
			clients = append(clients, dial(t, s.Addrs()[0]))
			servers = append(servers, b.next(t))
			pass(t, clients[len(clients)-1], servers[len(servers)-1], []byte("hello"))
		}
		clients[0].(*net.TCPConn).CloseWrite()
		wantEOF(t, servers[0]) // closing, from here on
		pass(t, servers[1], clients[1], []byte("answer"))
		clients[2].Close()
		servers[2].Close()
		g.end(t, 0)
		if err := s.MarkUp("b2"); err != nil {
			t.Fatal(err)
		}
		back := s.Backends()[0].Backend
		back.Weight = 0
		if err := s.SetBackend(back); err != nil {
			t.Fatal(err)
		}
		dial(t, s.Addrs()[0]) // connecting to b2
		for s.Counts().Inactive != 2 {
			<-time.After(time.Millisecond)
		}
		want := []BackendStatus{{Active: 2, Inactive: 1, Total: 4, BytesIn: 20, BytesOut: 6}, {Inactive: 1}}
		for i, st := range s.Backends() {
			if w := want[i]; st.Active != w.Active || st.Inactive != w.Inactive || st.Total != w.Total || st.BytesIn != w.BytesIn || st.BytesOut != w.BytesOut {
				t.Errorf("backend %d is %+v, want the counts of %+v", i, st, w)
			}
		}
		if c := s.Counts(); c != (Counts{Active: 2, Inactive: 2, Accepted: 5, BytesIn: 20, BytesOut: 6}) {
			t.Errorf("the counts are %+v", c)
		}
		states := map[string]int{}
		list, _, _ := g.Connections(Filter{})
		for _, c := range list {
			states[c.State]++
		}
		if states["established"] != 2 || states["closing"] != 1 || states["connecting"] != 1 {
			t.Errorf("the states are %v", states)
		}
	})
}

// TestListeners fills an accept queue beyond its length.
func TestListeners(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g := newRig(t)
		opts := ServiceOptions{
			Name: "s", Backlog: 4, Backends: []Backend{{Name: "b", Address: MustParseAddress(echo(t, host)), Weight: 1}},
			Listen: []Address{freeAddress(t, host), MustParseAddress("unix:" + filepath.Join(t.TempDir(), "s"))},
		}
		change, err := g.Configure([]ServiceOptions{opts})
		if err != nil {
			t.Fatal(err)
		}
		s := change.Services[0]
		want := []ListenerStatus{{Address: opts.Listen[0], QueueMax: 4}, {Address: opts.Listen[1]}}
		if got := s.Listeners(); !slices.Equal(got, want) {
			t.Errorf("the listeners are %+v, want %+v", got, want)
		}
		away := make(chan struct{})
		for _, l := range g.loops {
			l.post(func() { <-away })
		}
		ctx, cancel := context.WithCancel(t.Context())
		dialed := make(chan struct{})
		const clients = 12
		for range clients {
			go func() {
				if c, err := new(net.Dialer).DialContext(ctx, "tcp", opts.Listen[0].String()); err == nil {
					defer c.Close()
					<-ctx.Done()
				}
				dialed <- struct{}{}
			}()
		}
		deadline := time.Now().Add(10 * time.Second)
		for {
			got := s.Listeners()[0]
			if got.Queue > got.QueueMax && got.Dropped > 0 { // two processors can make it two more
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("the listener is %+v while %d clients connect", got, clients)
				break
			}
			<-time.After(time.Millisecond)
		}
		// A longer queue takes them all, at their next SYN.
		opts.Backlog = 100
		if _, err := g.Configure([]ServiceOptions{opts}); err != nil {
			t.Fatal(err)
		}
		deadline = time.Now().Add(20 * time.Second)
		for s.Listeners()[0].Queue < clients && time.Now().Before(deadline) {
			<-time.After(time.Millisecond)
		}
		if got := s.Listeners()[0]; got.QueueMax != 100 || got.Queue != clients {
			t.Errorf("the listener is %+v, want a queue of %d of 100", got, clients)
		}
		cancel()
		for range clients {
			<-dialed
		}
		close(away)
		if n := s.Drain(t.Context()); n != 0 || s.Listeners() != nil {
			t.Errorf("%d were reset, the listeners are %+v", n, s.Listeners())
		}
	})
}

// TestEndInJSON: the age is in seconds, as everywhere.
func TestEndInJSON(t *testing.T) {
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("ended", "connection", End{ID: 7, Age: 1500 * time.Millisecond})
	var line struct{ Connection struct{ Age float64 } }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Connection.Age != 1.5 {
		t.Errorf("%s: %v", out.Bytes(), err)
	}
}

// TestAcceptFailures: a listener that cannot be accepted from is tried often and
// spoken of seldom.
func TestAcceptFailures(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		var out bytes.Buffer
		r, err := New(Options{Loops: 1, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		ln, err := bindListener(MustParseAddress(host+":0"), false) // and does not listen
		if err != nil {
			t.Fatal(err)
		}
		defer ln.close()
		ln.service.Store(newService(r, ServiceOptions{Name: "s"}))
		l := r.loops[0]
		l.now = r.clock()
		for range 50 {
			l.accept(ln)
			l.now += int64(acceptPause)
		}
		if n := bytes.Count(out.Bytes(), []byte("accept failed")); n != 3 {
			t.Errorf("50 failures within 2.5 s are %d lines:\n%s", n, out.Bytes())
		}
	})
}

// TestRefusedWithoutALock: nothing is held while a refused client is reported.
func TestRefusedWithoutALock(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		var r *Relay
		free := false
		r, err := New(Options{Loops: 1, OnEnd: func(e End) {
			if free = r.descriptors.TryLock(); free {
				r.descriptors.Unlock()
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		s, err := r.Listen(ServiceOptions{Listen: []Address{MustParseAddress(host + ":0")}})
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, s.Addrs()[0])
		l := r.loops[0] // does not run: this goroutine may do its work
		if _, err := sys.PollNow(s.listeners[0].fd); err != nil || !l.refuseOne(s.listeners[0], 0) || !free {
			t.Errorf("the client was refused; the lock was free: %v, %v", free, err)
		}
		wantRST(t, c)
	})
}
