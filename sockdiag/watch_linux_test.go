package sockdiag

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// watched is what a Watch has told.
type watched struct {
	sock Socket
	err  error
}

// follow opens a Watch and hands on what it tells, until the test ends.
func follow(t *testing.T, s *site, o WatchOptions) <-chan watched {
	t.Helper()
	var w *Watch
	s.do(func() (err error) {
		w, err = OpenWatch(o)
		return err
	})
	told := make(chan watched, 10000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sock, err := range w.Destroyed(ctx) {
			told <- watched{sock, err}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		var last error
		for len(told) > 0 {
			last = (<-told).err
		}
		if !errors.Is(last, context.Canceled) {
			t.Errorf("the watch ended with %v", last)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return told
}

// await takes what is told until f says that it is enough.
func await(t *testing.T, told <-chan watched, what string, f func(watched) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		select {
		case w := <-told:
			if f(w) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("%s: not told", what)
		}
	}
}

func TestWatch(t *testing.T) {
	s := newSite(t)
	four, six, dual := s.listen("tcp4", "127.0.0.1:1001"), s.listen("tcp6", "[::1]:1002"), s.listen("tcp", ":1003")
	told := follow(t, s, WatchOptions{})
	for _, tt := range []struct {
		name, network, address string
		l                      *net.TCPListener
	}{
		{"IPv4", "tcp4", "127.0.0.1:1001", four},
		{"IPv6", "tcp6", "[::1]:1002", six},
		{"mapped", "tcp4", "127.0.0.1:1003", dual},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := s.connect(tt.l, tt.network, tt.address)
			if _, err := p.client.Write(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			server, err := s.conn.Find(p.remote(), p.local(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.conn.Destroy(server); err != nil {
				t.Fatal(err)
			}
			// It is there until its program closes it.
			if err := reads(t, p.server); err == nil {
				t.Fatal("read")
			}
			_ = p.server.Close()
			await(t, told, server.String(), func(w watched) bool {
				if w.err != nil {
					t.Fatal(w.err)
				}
				if w.sock.Cookie != server.Cookie {
					return false
				}
				got := w.sock
				if got.Local != server.Local || got.Remote != server.Remote || got.Mapped != server.Mapped || got.State != Closed {
					t.Errorf("%+v, was %+v", got, server)
				}
				if got.Info == nil || got.Info.BytesReceived != 100 {
					t.Errorf("its TCP_INFO is %+v, want 100 bytes received", got.Info)
				}
				return true
			})
		})
	}
	// Who enters TimeWait, while that is listed as the same.
	p := s.connect(dual, "tcp6", "[::1]:1003")
	client, err := s.conn.Find(p.local(), p.remote(), 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = p.client.Close()
	if err := reads(t, p.server); err != io.EOF {
		t.Fatal(err)
	}
	_ = p.server.Close()
	await(t, told, client.String(), func(w watched) bool { return w.err == nil && w.sock.Cookie == client.Cookie })
	if rest := s.list(Filter{States: StatesOf(TimeWait)}, ListOptions{}); len(rest) != 1 || rest[0].Cookie != client.Cookie {
		t.Errorf("%+v, was %+v", rest, client)
	}
	// A listener, too.
	four.Close()
	await(t, told, "the listener", func(w watched) bool {
		return w.err == nil && w.sock.Local.String() == "127.0.0.1:1001" && w.sock.Remote.Port() == 0
	})
}

// Of more than the kernel keeps, something is lost; that is told once, after what
// was kept, and then the watch goes on.
func TestWatchOverflow(t *testing.T) {
	s := newSite(t)
	all := crowd(t, s, 200)
	var w *Watch
	s.do(func() (err error) {
		w, err = OpenWatch(WatchOptions{Buffer: minBuffer})
		return err
	})
	defer w.Close()
	one := s.listen("tcp4", "127.0.0.1:2001")
	for _, p := range all {
		_ = p.client.SetLinger(0)
		_ = p.client.Close()
		_ = p.server.Close()
	}
	until(t, "the kernel drops some", func() bool { return s.dropped() })

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	told, overflows := 0, 0
	var next Socket // one that ends after the newest overflow: it is told, or overflows again
	for sock, err := range w.Destroyed(ctx) {
		switch {
		case errors.Is(err, ErrOverflow):
			if overflows++; overflows == 1 && (told == 0 || told >= 2*len(all)) {
				t.Errorf("%d of %d were told before the overflow", told, 2*len(all))
			}
			p := s.connect(one, "tcp4", "127.0.0.1:2001")
			if next, err = s.conn.Find(p.local(), p.remote(), 0); err != nil {
				t.Fatal(err)
			}
			_ = p.client.SetLinger(0)
			_ = p.client.Close()
		case err != nil:
			t.Fatal(err)
		default:
			told++
		}
		if err == nil && sock.Cookie == next.Cookie {
			// Its program reset it, and with that its addresses.
			if !sock.Local.Addr().IsUnspecified() || sock.Local.Port() != next.Local.Port() {
				t.Errorf("%+v, was %+v", sock, next)
			}
			break
		}
	}
	if overflows == 0 {
		t.Error("no overflow was told")
	}
}

// dropped says whether the kernel has dropped a message of socket diagnosis.
func (s *site) dropped() bool {
	s.t.Helper()
	var text []byte
	s.do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/netlink")
		return err
	})
	for line := range strings.Lines(string(text)) {
		const protocol, drops, diagnosis = 1, 8, "4"
		if f := strings.Fields(line); len(f) > drops && f[protocol] == diagnosis && f[drops] != "0" {
			return true
		}
	}
	return false
}

func TestWatchEnds(t *testing.T) {
	s := newSite(t)
	for _, o := range []WatchOptions{{Buffer: 1}, {Buffer: -1}, {Buffer: maxBuffer + 1}} {
		if _, err := OpenWatch(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	var w *Watch
	s.do(func() (err error) {
		w, err = OpenWatch(WatchOptions{})
		return err
	})
	l := s.listen("tcp4", "127.0.0.1:1001")
	// A context that has ended does not spoil the next one.
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		last := make(chan error, 1)
		go func() {
			for _, err := range w.Destroyed(ctx) {
				last <- err
			}
		}()
		cancel()
		if err := <-last; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	_ = l.Close()
	for sock, err := range w.Destroyed(t.Context()) {
		if err != nil || sock.Local.Port() != 1001 {
			t.Errorf("%s, %v", sock, err)
		}
		break
	}
	last := make(chan error, 1)
	go func() {
		for _, err := range w.Destroyed(context.Background()) {
			last <- err
		}
	}()
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Error(err)
	}
	if err := <-last; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v; want net.ErrClosed", err)
	}
}
