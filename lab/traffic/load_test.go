//go:build linux

package traffic

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

func TestFleet(t *testing.T) {
	ctx := bounded(t)
	var j Journal
	address := serve(t, "tcp", "127.0.0.1:0", ServerOptions{Name: "b1", OnEvent: j.Add})
	var groups []Group
	for _, p := range patterns {
		opt := ClientOptions{Address: address, Pattern: p}
		if p == Upload || p == Download {
			opt.Size, opt.Period = 4096, 5*time.Millisecond
		}
		groups = append(groups, Group{Count: 20, Client: opt})
	}
	f, err := NewFleet(FleetOptions{Seed: 1, Groups: groups})
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan []Report, 1)
	go func() { result <- f.Run(ctx) }()
	if err := f.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	f.Finish()
	reports := <-result
	if len(reports) != 20*len(patterns) {
		t.Fatalf("%d reports", len(reports))
	}
	seen := map[ID]bool{}
	for _, r := range reports {
		if !r.Complete || !r.Checked || seen[r.ID] {
			t.Errorf("%+v", r)
		}
		seen[r.ID] = true
	}
}

func TestProber(t *testing.T) {
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			ctx := bounded(t)
			address := serve(t, "tcp", fam.listen, ServerOptions{Name: "b1"})
			var over, right atomic.Int64
			p, err := NewProber(ProberOptions{Address: address, Rate: 500, OnProbe: func(p Probe) {
				over.Add(1)
				if p.Err == nil && p.Server == "b1" && p.Connect > 0 && p.EndedAt.Sub(p.StartedAt) > p.Connect {
					right.Add(1)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			run, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			r := p.Run(run)
			if r.Started < 10 || r.Failed != 0 || r.Succeeded != r.Started || r.Open != 0 || r.Servers["b1"] != r.Started {
				t.Errorf("%+v", r)
			}
			if int(over.Load()) != r.Started || int(right.Load()) != r.Succeeded {
				t.Errorf("OnProbe was told of %d, %d of them right; %d were begun, %d were right", over.Load(), right.Load(), r.Started, r.Succeeded)
			}
			if r.P50 <= 0 || r.P99 < r.P50 || r.Worst < r.P99 || r.ConnectWorst > r.Worst {
				t.Errorf("latencies: %+v", r)
			}
		})
	}
}

// TestProberOpenLoop has a peer that accepts and says nothing: the prober keeps
// its schedule although every one of its connections hangs.
func TestProberOpenLoop(t *testing.T) {
	ctx := bounded(t)
	l, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := NewProber(ProberOptions{Address: l.Addr().String(), Rate: 100, Timeout: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	run, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	r := p.Run(run)
	if r.Started < 5 || r.Failed != r.Started || len(r.Failures) != r.Started || r.FirstFailureAt == 0 {
		t.Fatalf("%+v", r)
	}
	for _, f := range r.Failures {
		if f.Stage != "answer" || f.Ending != Closed || f.After < 400*time.Millisecond {
			t.Errorf("%+v", f)
		}
	}
}

// TestProberFailures names the stage and the errno of what fails.
func TestProberFailures(t *testing.T) {
	ctx := bounded(t)
	l, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	probe := func() Failure {
		p, err := NewProber(ProberOptions{Address: address, Rate: 50})
		if err != nil {
			t.Fatal(err)
		}
		run, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		r := p.Run(run)
		if r.Failed != 1 {
			t.Fatalf("%+v", r)
		}
		return r.Failures[0]
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 1))
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}()
	if f := probe(); f.Ending != RST || f.Stage != "answer" {
		t.Errorf("reset: %+v", f)
	}
	l.Close()
	if f := probe(); f.Ending != Refused || f.Stage != "connect" || f.Errno != "ECONNREFUSED" {
		t.Errorf("refused: %+v", f)
	}
}

// TestDialWithin connects with a socket that is made elsewhere than it is waited for.
func TestDialWithin(t *testing.T) {
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) {
			ctx := bounded(t)
			address := serve(t, "tcp", fam.listen, ServerOptions{})
			here := 0
			dial := DialWithin(func(f func() error) error { here++; return f() })
			c, err := NewClient(ClientOptions{Dial: dial, Address: address, Pattern: Request, Requests: 3, Period: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if r := c.Run(ctx); !r.Complete || here != 1 {
				t.Errorf("%d, %+v", here, r)
			}
			l, err := Listen("tcp", fam.listen)
			if err != nil {
				t.Fatal(err)
			}
			gone := l.Addr().String()
			l.Close()
			_, err = dial(ctx, "tcp", gone)
			if e, errno := classify(err); e != Refused || errno != "ECONNREFUSED" {
				t.Errorf("refused: %v", err)
			}
			stopped, cancel := context.WithCancel(ctx)
			cancel()
			if conn, err := dial(stopped, "tcp", address); err == nil {
				conn.Close() // loopback can be faster than the context
			}
		})
	}
}
