//go:build linux

package traffic

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestPatterns runs every pattern to its orderly end: all is right, on both sides.
func TestPatterns(t *testing.T) {
	const length = 3<<20 + 17
	cases := []struct {
		name string
		opt  ClientOptions
	}{
		{"idle", ClientOptions{Pattern: Idle}},
		{"request pipelined", ClientOptions{Pattern: Request, Requests: 50, Period: time.Millisecond, Reply: 1000}},
		{"request one at a time", ClientOptions{Pattern: Request, Requests: 50, Period: time.Microsecond, OneAtATime: true, Size: 3}},
		{"request open", ClientOptions{Pattern: Request, Period: time.Millisecond}},
		{"request large", ClientOptions{Pattern: Request, Requests: 3, Period: time.Millisecond, Size: 200_000, Reply: 300_000}},
		{"upload", ClientOptions{Pattern: Upload, Length: length}},
		{"upload open", ClientOptions{Pattern: Upload}},
		{"upload paced", ClientOptions{Pattern: Upload, Size: 1000, Period: time.Millisecond}},
		{"upload read slowly", ClientOptions{Pattern: Upload, Length: 50_000, Size: 5000, Pace: 5 * time.Millisecond}},
		{"download", ClientOptions{Pattern: Download, Length: length}},
		{"download open", ClientOptions{Pattern: Download}},
		{"download paced", ClientOptions{Pattern: Download, Size: 1000, Period: time.Millisecond}},
		{"push", ClientOptions{Pattern: Push, Period: time.Millisecond}},
		{"zero-window", ClientOptions{Pattern: ZeroWindow}},
	}
	for _, fam := range families {
		for _, tc := range cases {
			t.Run(fam.name+"/"+tc.name, func(t *testing.T) {
				t.Parallel()
				ctx := bounded(t)
				var j Journal
				ledger := filepath.Join(t.TempDir(), "ledger")
				tc.opt.Address = serve(t, "tcp", fam.listen, ServerOptions{Name: "b1", OnEvent: j.Add, Ledger: ledger})
				c, err := NewClient(tc.opt)
				if err != nil {
					t.Fatal(err)
				}
				if tc.opt.Requests == 0 && tc.opt.Length == 0 { // the others end by themselves
					go func() {
						select {
						case <-c.Ready():
							c.Finish()
						case <-c.Ended():
						}
					}()
				}
				r := c.Run(ctx)
				if !r.Complete || !r.Checked || r.Ending != FIN || r.Corrupt || r.Server != "b1" {
					t.Fatalf("report: %+v", r)
				}
				f := until(ctx, t, &j, r.ID, func(f ServerFacts) bool { return f.End.At != 0 })
				if !f.Complete || f.Corrupt || f.In != r.Sent || f.Out != r.Received || f.End.Ending != FIN {
					t.Errorf("server: %+v\nclient: %+v", f, r)
				}
				if v := LiedTo(r, f); v.Lie != NoLie {
					t.Errorf("verdict %v of a good connection: %s", v.Lie, v.Why)
				}
				led, err := ReadLedger(ledger)
				if err != nil {
					t.Fatal(err)
				}
				g := led[r.ID]
				if g.In != f.In || g.Out != f.Out || g.Complete != f.Complete || g.Pattern != f.Pattern || g.End.At != f.End.At {
					t.Errorf("ledger: %+v\nevents: %+v", g, f)
				}
				switch tc.opt.Pattern {
				case Upload:
					if tc.opt.Length > 0 && r.Sent != tc.opt.Length || g.Announced != r.Sent {
						t.Errorf("sent %d, announced %d", r.Sent, g.Announced)
					}
				case Download:
					if tc.opt.Length > 0 && r.Received != tc.opt.Length {
						t.Errorf("received %d of %d", r.Received, tc.opt.Length)
					}
				case Request:
					if tc.opt.Requests > 0 && r.Requests != int64(tc.opt.Requests) || r.Unanswered != 0 || r.WorstReply == 0 {
						t.Errorf("requests: %+v", r)
					}
				}
			})
		}
	}
}

// fault is something that a peer does to a connection.
type fault struct {
	name string
	do   func(c *net.TCPConn)
	want Ending
}

var faults = []fault{
	{"reset", func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, RST},
	{"end of stream", func(c *net.TCPConn) { _ = c.CloseWrite() }, FIN},
}

// TestTold has a server end every pattern in every way after it has become
// busy, and demands that the client knows at once, and how.
func TestTold(t *testing.T) {
	for _, fam := range families {
		for _, p := range patterns {
			for _, f := range faults {
				if p == ZeroWindow && f.want == FIN {
					continue // the end of stream is behind the data that the client does not read
				}
				t.Run(fmt.Sprintf("%s/%s/%s", fam.name, p, f.name), func(t *testing.T) {
					t.Parallel()
					ctx := bounded(t)
					l, err := Listen("tcp", fam.listen)
					if err != nil {
						t.Fatal(err)
					}
					defer l.Close()
					opt := ClientOptions{Address: l.Addr().String(), Pattern: p}
					if p == Request || p == Push {
						opt.Period = time.Millisecond
					}
					c, err := NewClient(opt)
					if err != nil {
						t.Fatal(err)
					}
					result := make(chan Report, 1)
					go func() { result <- c.Run(ctx) }()
					conn, err := l.Accept()
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					at := blockPeer(ctx, t, c, conn.(*net.TCPConn), p)
					f.do(conn.(*net.TCPConn))
					r := <-result
					if r.Ending != f.want || !r.Told() || r.Complete {
						t.Errorf("told %v: %+v", r.Ending, r)
					}
					if r.At < at {
						t.Errorf("told %v before the fault", at.Sub(r.At))
					}
					if f.want == RST && r.Errno != "ECONNRESET" {
						t.Errorf("errno %q", r.Errno)
					}
					if r.Poll == "" || r.Read == "" {
						t.Errorf("poll %q, read %q", r.Poll, r.Read)
					}
				})
			}
		}
	}
}

// blockPeer plays a server without reading, until the client is in the state
// that the pattern is about, and returns the time.
func blockPeer(ctx context.Context, t *testing.T, c *Client, conn *net.TCPConn, p Pattern) Instant {
	t.Helper()
	buf := make([]byte, startLineMax)
	n := 0
	for n == 0 || buf[n-1] != '\n' {
		k, err := conn.Read(buf[n : n+1])
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	s, err := parseStart(string(buf[:n]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("OK fake\n")); err != nil {
		t.Fatal(err)
	}
	<-c.Ready()
	out := newStream(s.id, down)
	switch p {
	case Upload: // until the client's write is blocked
		_ = conn.SetReadBuffer(4096)
		waitSteady(ctx, t, func() int64 { return c.Report().Sent })
	case ZeroWindow, Download: // until this side's write would block, or all is there
		_ = conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		for pos := int64(0); pos < 64<<20; {
			k, err := conn.Write(out.at(pos, chunkLen))
			pos += int64(k)
			if err != nil {
				break
			}
		}
	case Push:
		if _, err := conn.Write(out.at(0, 16)); err != nil {
			t.Fatal(err)
		}
	}
	return Now()
}

// waitSteady waits until a counter has moved and then stood still for 100 ms.
func waitSteady(ctx context.Context, t *testing.T, value func() int64) {
	t.Helper()
	last, since := int64(0), time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if v := value(); v != last {
			last, since = v, time.Now()
		} else if v > 0 && time.Since(since) > 100*time.Millisecond {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the client does not come to rest")
		}
	}
}
