//go:build linux

package traffic

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLiedTo(t *testing.T) {
	ended := func(r Report, e Ending) Report { r.Ending, r.StartedAt, r.End.At = e, 1, 9; return r }
	closedByServer := End{Ending: FIN, At: 8}
	cases := []struct {
		name  string
		r     Report
		facts ServerFacts
		want  Lie
	}{
		{"upload whole", ended(Report{Pattern: Upload, Sent: 10, HalfClosedAt: 2}, FIN), ServerFacts{In: 10, End: closedByServer}, NoLie},
		{"upload lost", ended(Report{Pattern: Upload, Sent: 10, HalfClosedAt: 2}, FIN), ServerFacts{In: 9}, UploadLost},
		{"upload lost, server unknown", ended(Report{Pattern: Upload, Sent: 10, HalfClosedAt: 2}, FIN), ServerFacts{Fate: Killed}, UploadLost},
		{"upload in the killed server's kernel", ended(Report{Pattern: Upload, Sent: 10, HalfClosedAt: 2}, FIN), ServerFacts{In: 4, Announced: 10, Fate: Killed}, NoLie},
		{"upload cut and told so", ended(Report{Pattern: Upload, Sent: 10, HalfClosedAt: 2}, RST), ServerFacts{In: 4}, NoLie},
		{"upload ended early by the killed server's kernel", ended(Report{Pattern: Upload, Sent: 10}, FIN), ServerFacts{In: 4, Fate: Killed}, NoLie},
		{"upload ended, crossing", ended(Report{Pattern: Upload, Sent: 10, HalfClosedAt: 1e9, EndOfStreamAt: 1e9 + 1e6}, FIN), ServerFacts{In: 4, Fate: Killed, FateAt: 1e9 - 1e6}, NoLie},
		{"upload ended after the server died, too late for a cross", ended(Report{Pattern: Upload, Sent: 10, HalfClosedAt: 1e9, EndOfStreamAt: 1e9 + 5e7}, FIN), ServerFacts{In: 4, Fate: Killed, FateAt: 1e9 - 1e6}, UploadLost},
		{"upload done long before the server died", ended(Report{Pattern: Upload, Sent: 10, HalfClosedAt: 1e9, EndOfStreamAt: 2e9 + 1e6}, FIN), ServerFacts{In: 4, Fate: Killed, FateAt: 2e9}, UploadLost},
		{"upload ended before the half-close", ended(Report{Pattern: Upload, Sent: 10, HalfClosedAt: 2, EndedEarly: true}, FIN), ServerFacts{In: 4, Fate: Killed}, NoLie},
		{"upload ended before the half-close by nobody", ended(Report{Pattern: Upload, Sent: 10, HalfClosedAt: 2, EndedEarly: true}, FIN), ServerFacts{In: 4}, FalseEnd},
		{"upload ended early by nobody", ended(Report{Pattern: Upload, Sent: 10}, FIN), ServerFacts{In: 4}, FalseEnd},
		{"download whole", ended(Report{Pattern: Download, Length: 10, Received: 10}, FIN), ServerFacts{Out: 10, Complete: true}, NoLie},
		{"download cut, host silent", ended(Report{Pattern: Download, Length: 10, Received: 4}, FIN), ServerFacts{Out: 4, Fate: Silent}, FalseEnd},
		{"download cut and told so", ended(Report{Pattern: Download, Length: 10, Received: 4}, RST), ServerFacts{Out: 4, Fate: Silent}, NoLie},
		{"download ended by the killed server's kernel", ended(Report{Pattern: Download, Length: 10, Received: 4}, FIN), ServerFacts{Out: 4, Fate: Killed}, NoLie},
		{"download of a killed server with bytes lost", ended(Report{Pattern: Download, Length: 10, Received: 3}, FIN), ServerFacts{Out: 4, Fate: Killed}, FalseEnd},
		{"download not ended", ended(Report{Pattern: Download, Length: 10, Received: 4}, Alive), ServerFacts{Out: 10}, NoLie},
		{"open download stopped in order", ended(Report{Pattern: Download, Received: 10, HalfClosedAt: 2}, FIN), ServerFacts{Out: 10, End: closedByServer}, NoLie},
		{"open download stopped, bytes lost", ended(Report{Pattern: Download, Received: 9, HalfClosedAt: 2}, FIN), ServerFacts{Out: 10, End: closedByServer}, FalseEnd},
		{"push ended by a proxy on both sides", ended(Report{Pattern: Push, Received: 10}, FIN), ServerFacts{Out: 10, Complete: true, End: closedByServer}, FalseEnd},
		{"idle ended by the server's shutdown", ended(Report{Pattern: Idle}, FIN), ServerFacts{End: End{Ending: Closed, At: 8}}, NoLie},
		{"idle ended by nobody", ended(Report{Pattern: Idle}, FIN), ServerFacts{}, FalseEnd},
		{"idle half-closed, server not ended", ended(Report{Pattern: Idle, HalfClosedAt: 2}, FIN), ServerFacts{}, FalseEnd},
		{"client got a wrong byte", ended(Report{Pattern: Push, Corrupt: true}, Closed), ServerFacts{}, Corrupted},
		{"server got a wrong byte", ended(Report{Pattern: Upload}, RST), ServerFacts{Corrupt: true}, Corrupted},
		{"never answered", Report{Pattern: Download, End: End{Ending: FIN}}, ServerFacts{Fate: Silent}, NoLie},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if v := LiedTo(tc.r, tc.facts); v.Lie != tc.want || (v.Why == "") != (v.Lie == NoLie && !v.Crossed) || v.Crossed != strings.Contains(tc.name, "crossing") {
				t.Errorf("%v (%s), want %v", v.Lie, v.Why, tc.want)
			}
		})
	}
}

// TestStream: any window of a stream checks as itself and as nothing else: not
// with a byte changed, not shifted by a buffer's worth, not as another's.
func TestStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Uint64Min(1).Draw(t, "id")
		s := newStream(id, up)
		pos := rapid.Int64Range(0, 1<<40).Draw(t, "pos")
		n := rapid.IntRange(32, 3*chunkLen).Draw(t, "n")
		var p []byte
		for len(p) < n {
			p = append(p, s.at(pos+int64(len(p)), n-len(p))...)
		}
		if at := s.check(pos, p); at != -1 {
			t.Fatalf("its own bytes are wrong at %d", at)
		}
		i := rapid.IntRange(0, n-1).Draw(t, "i")
		p[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "xor"))
		if at := s.check(pos, p); at != pos+int64(i) {
			t.Fatalf("changed at %d, found at %d", pos+int64(i), at)
		}
		p[i] = s.at(pos+int64(i), 1)[0]
		shift := rapid.SampledFrom([]int64{1, 1448, 4096, chunkLen, 1 << 20, 3 << 20, 1 << 30}).Draw(t, "shift")
		if s.check(pos+shift, p) < 0 {
			t.Fatalf("a shift by %d is not seen", shift)
		}
		if newStream(id, down).check(pos, p) < 0 || newStream(id+1, up).check(pos, p) < 0 {
			t.Fatal("another stream is not told apart")
		}
	})
}

// TestCorruption puts a proxy between client and server that changes one byte,
// and demands that the right side says where.
func TestCorruption(t *testing.T) {
	const at, length = 100_003, 400_000
	for _, p := range []Pattern{Upload, Download} {
		t.Run(p.String(), func(t *testing.T) {
			ctx := bounded(t)
			var j Journal
			server := serve(t, "tcp", "127.0.0.1:0", ServerOptions{OnEvent: j.Add})
			l, err := Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go corrupter(l, server, p, at)
			c, err := NewClient(ClientOptions{Address: l.Addr().String(), Pattern: p, Length: length})
			if err != nil {
				t.Fatal(err)
			}
			r := c.Run(ctx)
			f := until(ctx, t, &j, r.ID, func(f ServerFacts) bool { return f.End.At != 0 })
			if v := LiedTo(r, f); v.Lie != Corrupted {
				t.Errorf("verdict %v %s", v.Lie, v.Why)
			}
			switch {
			case p == Upload && (!f.Corrupt || f.CorruptAt != at || f.Complete): // this proxy tells the client of a good end, as proxies do
				t.Errorf("server: %+v", f)
			case p == Download && (!r.Corrupt || r.CorruptAt != at || r.Verified != at || r.Complete || r.Ending != Closed):
				t.Errorf("client: %+v", r)
			}
		})
	}
}

// corrupter is a proxy for one connection that changes byte number at of the
// payload in the direction of the pattern.
func corrupter(l net.Listener, server string, p Pattern, at int64) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	s, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer s.Close()
	pass := func(dst, src net.Conn, change bool) {
		br := bufio.NewReader(src)
		line, _ := br.ReadString('\n')
		_, _ = io.WriteString(dst, line)
		if change {
			_, _ = io.CopyN(dst, br, at)
			b, _ := br.ReadByte()
			_, _ = dst.Write([]byte{b ^ 1})
		}
		_, _ = io.Copy(dst, br)
		_ = dst.(*net.TCPConn).CloseWrite()
	}
	done := make(chan struct{})
	go func() { pass(s, c, p == Upload); close(done) }()
	pass(c, s, p == Download)
	<-done
}

// TestServerProcessKilled kills real server processes in the middle of uploads
// and downloads. With nothing between, the kernel tells the truth, and the
// ledger must agree with what the client saw: else the judge is wrong.
func TestServerProcessKilled(t *testing.T) {
	for _, fam := range families {
		for round := range 8 {
			t.Run(fmt.Sprintf("%s/%d", fam.name, round), func(t *testing.T) {
				t.Parallel()
				killOne(t, fam.listen, int64(1+round*round)<<17)
			})
		}
	}
}

func killOne(t *testing.T, listen string, after int64) {
	ctx := bounded(t)
	ledger := filepath.Join(t.TempDir(), "ledger")
	cmd := exec.CommandContext(ctx, os.Args[0], serverArg, "-listen", listen, "-name", "victim", "-ledger", ledger)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var j Journal
	ready := make(chan string, 1)
	read := make(chan error, 1)
	go func() {
		read <- ReadEvents(out, func(e Event) {
			if e.Kind == EventReady {
				ready <- e.Address
			}
			j.Add(e)
		})
	}()
	address := <-ready
	upload := ClientOptions{Address: address, Pattern: Upload, Length: 4 << 20}
	download := ClientOptions{Address: address, Pattern: Download, Length: 4 << 20}
	short := ClientOptions{Address: address, Pattern: Upload, Length: 100}
	slow := ClientOptions{Address: address, Pattern: Upload, Length: 100_000, Size: 10_000, Pace: 20 * time.Millisecond}
	f, err := NewFleet(FleetOptions{Groups: []Group{{4, upload}, {4, download}, {4, short}, {4, slow}}})
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan []Report, 1)
	go func() { result <- f.Run(ctx) }()
	waitFor(ctx, t, func() bool { return f.Clients()[0].Report().Sent >= after || ended(f.Clients()[0]) })
	at := Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	reports := <-result
	if err := <-read; err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed: that is the error
	facts, err := ReadLedger(ledger)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		k := facts[r.ID]
		k.Fate, k.FateAt = Killed, at
		if v := LiedTo(r, k); v.Lie != NoLie {
			t.Errorf("%s: %s\n%+v\n%+v", v.Lie, v.Why, r, k)
		}
		if e, ok := j.Facts(r.ID); ok && e.In > k.In {
			t.Errorf("the events know of %d bytes, the ledger of %d", e.In, k.In)
		}
		if r.Ending == Alive {
			t.Errorf("not told: %+v", r)
		}
	}
}

func ended(c *Client) bool {
	select {
	case <-c.Ended():
		return true
	default:
		return false
	}
}

// waitFor polls, by the millisecond: what it waits for has no channel.
func waitFor(ctx context.Context, t *testing.T, ok func() bool) {
	t.Helper()
	tick := newTick(t)
	for !ok() {
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatal("it does not happen")
		}
	}
}
