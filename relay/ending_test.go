//go:build linux

package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestRulesOfEndings goes through every combination of what the rules can see.
func TestRulesOfEndings(t *testing.T) {
	var all []stream
	for o := notOver; o <= overDead; o++ {
		for bits := range 16 {
			s := stream{over: o, held: bits&1 != 0, acked: bits&2 != 0, passed: bits&4 != 0, broken: bits&8 != 0}
			if s.passed && (s.over == notOver || s.held) {
				continue // an end is passed on only after everything before it
			}
			all = append(all, s)
		}
	}
	for _, in := range all {
		for _, out := range all {
			if in.broken && out.over == overFIN || out.broken && in.over == overFIN {
				continue // a socket that broke has not ended well; see leg.fail
			}
			for _, answered := range []bool{false, true} {
				got := decide(in, out, answered)
				bad := func(why string) {
					t.Helper()
					t.Errorf("in %+v out %+v answered %v: action %d: %s", in, out, answered, got, why)
				}
				switch got {
				case actEndClient:
					if !in.delivered() {
						bad("the client is told that all is well while bytes of its own may be lost")
					}
					if !out.delivered() || out.over != overFIN {
						bad("an end of stream that was none, or before the bytes in front of it")
					}
					if in.over == overFIN && !in.passed {
						bad("the backend has not been told that the upload is complete")
					}
				case actEndBackend:
					if !in.delivered() || in.over != overFIN {
						bad("an end of stream that was none, or before the bytes in front of it")
					}
				case actClose:
					if !in.passed || !out.passed || in.over != overFIN || out.over != overFIN {
						bad("closed without both ends of stream")
					}
				case actResetClient:
					if out.over != overRST {
						bad("the backend has not reset")
					}
					if in.over != overRST && !out.settled() {
						bad("what came before the reset is not delivered")
					}
				case actResetBackend:
					if in.over != overRST || !in.settled() {
						bad("the client has not reset, or what came before is not delivered")
					}
				case actResetBoth:
					if in.over != overDead && out.over != overDead {
						bad("nobody is silent")
					}
				case actWait:
					if in.over == overDead || out.over == overDead {
						bad("nothing comes from a dead host, there is nothing to wait for")
					}
					if in.over != notOver && out.over != notOver && in.settled() && out.settled() {
						bad("everything is over and delivered: this would wait for ever")
					}
				}
			}
		}
	}
}

// noEnd checks that nothing can be read for a while.
func noEnd(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(d))
	n, err := c.Read(make([]byte, 1))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read returned %d, %v; want nothing to come", n, err)
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
}

// TestNoEndBeforeTheUploadArrived: the backend has said all it has to say, and
// reads slowly. The client that half-closed is told only when the backend's
// kernel has every byte.
func TestNoEndBeforeTheUploadArrived(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		client := dial(t, s.Addrs()[0])
		server := b.next(t)
		server.CloseWrite()
		wantEOF(t, client) // nobody owes the client anything yet
		client.Close()
		g.end(t, 0)

		client = dial(t, s.Addrs()[0])
		server = b.next(t)
		const size = 24 << 20 // more than all buffers between them
		sent := make(chan error, 1)
		go func() {
			_, err := client.Write(make([]byte, size))
			client.(*net.TCPConn).CloseWrite()
			sent <- err
		}()
		awaitHeld(t, g) // the upload is under way
		server.CloseWrite()
		noEnd(t, client, 300*time.Millisecond)
		if n, err := io.Copy(io.Discard, server); n != size || err != nil {
			t.Fatalf("the backend read %d, %v", n, err)
		}
		wantEOF(t, client)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	})
}

// TestCrashIsNotAnEnd: a backend that dies between two reads of an upload looks
// as if it had ended its stream on purpose. The client must not take it so.
func TestCrashIsNotAnEnd(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		for i := range 20 {
			client := dial(t, s.Addrs()[0])
			server := b.next(t)
			pass(t, client, server, random(1000))
			server.Close() // everything was read: its kernel sends a FIN
			client.Write(random(1000))
			client.(*net.TCPConn).CloseWrite()
			wantRST(t, client)
			if e := g.end(t, i); e.Cause != CauseReset || e.By != ByBackend {
				t.Errorf("the end is %+v", e)
			}
		}
	})
}

// TestResetRightBehindAnEnd: the backend's process dies while the relay is about
// to write to it, so that the kernel reports its FIN and the RST that the bytes
// draw in one event. recv says of such a socket that its stream has ended, and
// nothing of the error.
func TestResetRightBehindAnEnd(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		client := dial(t, s.Addrs()[0])
		server := b.next(t)
		pass(t, client, server, random(10))
		g.ask(func(l *loop) {
			l.kernel.send = func(fd int, p []byte) (int, syscall.Errno) {
				server.Close() // nothing is unread: a FIN
				return realKernel.send(fd, p)
			}
		})
		client.Write(random(1000))
		client.(*net.TCPConn).CloseWrite()
		client.SetReadDeadline(time.Now().Add(5 * time.Second)) // below the bound of dead peers
		wantRST(t, client)
		if e := g.end(t, 0); e.Cause != CauseReset || e.By != ByBackend {
			t.Errorf("the end is %+v", e)
		}
	})
}

// TestMeantEndIsNotHeldBack: an answer and its end reach the client at once,
// and so does the end of a backend that is still listening; only an end that
// could be a crash waits for a moment of quiet.
func TestMeantEndIsNotHeldBack(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		for range 20 {
			client := dial(t, s.Addrs()[0])
			server := b.next(t)
			pass(t, client, server, []byte("question"))
			pass(t, server, client, []byte("answer"))
			start := time.Now()
			server.Close()
			wantEOF(t, client)
			if took := time.Since(start); took >= quietClient {
				t.Errorf("the end of an answer took %v", took)
			}
		}
		client := dial(t, s.Addrs()[0])
		server := b.next(t)
		pass(t, client, server, []byte("no answer to this"))
		server.CloseWrite()
		wantEOF(t, client) // after quietClient
		pass(t, client, server, []byte("but the backend listens"))
	})
}

// TestHalfClosedBackendListens: a backend that has ended its own stream and
// reads on has not crashed, and a client that never stops talking is told so
// all the same.
func TestHalfClosedBackendListens(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		for _, talk := range []struct {
			size  int
			pause time.Duration
		}{{100, 5 * time.Millisecond}, {64 << 10, time.Microsecond}} {
			client := dial(t, s.Addrs()[0])
			server := b.next(t)
			pass(t, client, server, random(1000))
			stop, sent := make(chan struct{}), make(chan int64, 1)
			received := make(chan int64, 1)
			go func() {
				var n int64
				pause := time.NewTicker(talk.pause)
				defer pause.Stop()
				for data := random(talk.size); ; {
					k, err := client.Write(data)
					if n += int64(k); err != nil {
						break
					}
					select {
					case <-stop:
					case <-pause.C:
						continue
					}
					break
				}
				client.(*net.TCPConn).CloseWrite()
				sent <- n
			}()
			go func() {
				n, _ := io.Copy(io.Discard, server)
				received <- n
			}()
			server.CloseWrite()
			if err := client.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			wantEOF(t, client)
			close(stop)
			if want, got := <-sent, <-received; want != got {
				t.Errorf("%d of %d bytes have arrived after the half-close", got, want)
			}
			client.Close()
			server.Close()
		}
	})
}

func TestMarkDown(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		for _, policy := range []LostPolicy{LostReset, LostDrain} {
			g, b1, b2 := newRig(t), newBackend(t, host), newBackend(t, host)
			s := g.service(t, host, ServiceOptions{OnBackendLost: policy}, b1.addr(), b2.addr())
			one := dial(t, s.Addrs()[0])
			sone := b1.next(t)
			two := dial(t, s.Addrs()[0]) // behind it, or it may come first to the relay
			stwo := b2.next(t)
			pass(t, one, sone, []byte("1"))
			pass(t, two, stwo, []byte("2"))
			// Silence for longer than minQuiet, so that nobody seems alive.
			noEnd(t, one, 2*minQuiet)
			if err := s.MarkDown("b1", time.Now(), "the test says so"); err != nil {
				t.Fatal(err)
			}
			if policy == LostReset {
				wantRST(t, one)
				wantRST(t, sone)
				if e := g.end(t, 0); e.Cause != CauseBackendDown || e.Detail != "the test says so" || e.Backend != "b1" {
					t.Errorf("the end is %+v", e)
				}
			} else {
				pass(t, one, sone, []byte("still here"))
			}
			pass(t, two, stwo, []byte("untouched"))
			for range 4 {
				dial(t, s.Addrs()[0])
				b2.next(t)
			}
			if err := s.MarkUp("b1"); err != nil {
				t.Fatal(err)
			}
			dial(t, s.Addrs()[0])
			b1.next(t) // it has fewer connections
			if err := s.MarkDown("b3", time.Now(), ""); !errors.Is(err, ErrUnknownBackend) {
				t.Errorf("marking an unknown backend down: %v", err)
			}
		}
	})
}

// TestMarkDownSparesProgress: a download that goes on although the backend's
// check fails is not cut, and is once it stops.
func TestMarkDownSparesProgress(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		client := dial(t, s.Addrs()[0])
		server := b.next(t)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					if _, err := server.Write([]byte("tick")); err != nil {
						return
					}
				}
			}
		})
		defer wg.Wait()
		if _, err := io.ReadFull(client, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		if err := s.MarkDown("b1", time.Now().Add(-200*time.Millisecond), "check"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, make([]byte, 4*60)); err != nil {
			t.Fatalf("a download in progress was cut: %v", err)
		}
		close(stop)
		_, err := io.Copy(io.Discard, client)
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("once it stopped, the client saw %v; want a reset", err)
		}
		if e := g.end(t, 0); e.Cause != CauseBackendDown {
			t.Errorf("the end is %+v", e)
		}
	})
}

func TestIdleTimeout(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{IdleTimeout: 150 * time.Millisecond}, b.addr())
		client := dial(t, s.Addrs()[0])
		server := b.next(t)
		start := time.Now()
		for time.Since(start) < 400*time.Millisecond {
			pass(t, client, server, []byte("x"))
			pass(t, server, client, []byte("x"))
		}
		last := time.Now()
		wantRST(t, client)
		wantRST(t, server)
		if idle := time.Since(last); idle < 140*time.Millisecond {
			t.Errorf("reset after %v of idleness, want 150ms", idle)
		}
		if e := g.end(t, 0); e.Cause != CauseIdle {
			t.Errorf("the end is %+v", e)
		}
	})
}

func TestOperator(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{Drain: Drain{Timeout: 200 * time.Millisecond}}, b.addr())
		client := dial(t, s.Addrs()[0])
		server := b.next(t)
		pass(t, client, server, []byte("x"))
		list, _, _ := g.Connections(Filter{})
		if len(list) != 1 || list[0].Backend != "b1" || list[0].BytesIn != 1 || list[0].State != "established" {
			t.Fatalf("the connections are %+v", list)
		}
		if g.ResetConnections(Filter{}, list[0].ID) != 1 || g.ResetConnections(Filter{}, list[0].ID) != 0 {
			t.Error("a connection can be reset exactly once")
		}
		wantRST(t, client)
		wantRST(t, server)

		client = dial(t, s.Addrs()[0])
		server = b.next(t)
		pass(t, client, server, []byte("x"))
		if n, err := s.ResetBackend("b1"); n != 1 || err != nil {
			t.Fatalf("ResetBackend: %d, %v", n, err)
		}
		wantRST(t, client)
		wantRST(t, server)

		client = dial(t, s.Addrs()[0])
		server = b.next(t)
		pass(t, client, server, []byte("x"))
		back := s.Backends()[0].Backend
		back.Weight = 0
		if err := s.SetBackend(back); err != nil {
			t.Fatal(err)
		}
		pass(t, client, server, []byte("drained, not cut"))
		wantRefused(t, s.Addrs()[0])
		wantRST(t, client) // by the drain timeout
		wantRST(t, server)
		for i, want := range []Cause{CauseOperator, CauseOperator, CauseNoBackend, CauseDrained} {
			if e := g.end(t, i); e.Cause != want {
				t.Errorf("end %d is %+v, want %v", i, e, want)
			}
		}
		if err := s.RemoveBackend("b1"); err != nil {
			t.Fatal(err)
		}
		if err := s.RemoveBackend("b1"); !errors.Is(err, ErrUnknownBackend) {
			t.Errorf("removing it again: %v", err)
		}
		if n := s.Live(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func TestServiceDrain(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		client := dial(t, s.Addrs()[0])
		server := b.next(t)
		done := make(chan int, 1)
		go func() { done <- s.Drain(t.Context()) }()
		var gone atomic.Bool
		for !gone.Load() {
			gone.Store(true)
			g.ask(func(l *loop) {
				for _, ln := range l.listeners {
					if ln != nil {
						gone.Store(false)
					}
				}
			})
		}
		if c, err := net.Dial("tcp", s.Addrs()[0].String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting to a drained service: %v, %v", c, err)
		}
		pass(t, client, server, []byte("established connections carry on"))
		client.Close()
		server.Close()
		if n := <-done; n != 0 {
			t.Errorf("%d connections were reset", n)
		}
	})
}
