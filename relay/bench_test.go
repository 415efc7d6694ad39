//go:build linux

package relay

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

const crowdEnv = "HOLDFAST_TEST_CROWD"

// crowd is how many connections the listings are measured with: 18,000
// descriptors here, and as many in the process that has their other ends.
const crowd = 9000

// BenchmarkListing asks a relay with 9,000 connections for what the commands of
// an operator ask.
func BenchmarkListing(b *testing.B) {
	r, s := newCrowd(b)
	if r == nil {
		return
	}
	for name, ask := range map[string]func() int{
		"everything": func() int { list, _, _ := r.Connections(Filter{}); return len(list) - crowd },
		"limit": func() int {
			list, matched, _ := r.Connections(Filter{Limit: 100})
			return len(list) - 100 + matched - crowd
		},
		"no_match": func() int {
			list, _, _ := r.Connections(Filter{Client: netip.MustParsePrefix("192.0.2.0/24")})
			return len(list)
		},
		"backends":     func() int { return s.Backends()[0].Active - crowd },
		"counts":       func() int { return s.Counts().Active - crowd },
		"reset_nobody": func() int { return r.ResetConnections(Filter{}, 1<<60) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if off := ask(); off != 0 {
					b.Fatalf("%d too many", off)
				}
			}
		})
	}
}

// newCrowd makes a relay that carries the crowd. In the process that has their
// other ends it returns when they may go.
func newCrowd(b *testing.B) (*Relay, *Service) {
	if front := os.Getenv(crowdEnv); front != "" {
		crowdChild(b, front)
		return nil, nil
	}
	r, err := New(Options{Loops: 2})
	if err != nil {
		b.Fatal(err)
	}
	if n := r.MaxConnections(); n < crowd {
		r.Close()
		b.Skipf("the descriptors do for %d connections, %d are wanted", n, crowd)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(b.Context()) }()
	b.Cleanup(func() {
		r.Close()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	s, err := r.Listen(ServiceOptions{Listen: []Address{MustParseAddress("127.0.0.1:0")}})
	if err != nil {
		b.Fatal(err)
	}
	cmd, stdin, lines := startChild(b, crowdEnv+"="+s.Addrs()[0].String(), "-test.run=^$", "-test.bench=^BenchmarkListing$", "-test.benchtime=1x")
	b.Cleanup(func() {
		stdin.Close()
		_, _ = io.Copy(io.Discard, lines)
		_ = cmd.Wait()
	})
	var back string
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			b.Fatal(err)
		}
		if n, _ := fmt.Sscanf(line, "backend %s", &back); n == 1 {
			break // the testing package writes lines of its own
		}
	}
	if err := s.SetBackend(Backend{Name: "b", Address: MustParseAddress(back), Weight: 1}); err != nil {
		b.Fatal(err)
	}
	if _, err := io.WriteString(stdin, "go\n"); err != nil {
		b.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); s.Counts().Active < crowd; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("after a minute there are %+v", s.Counts())
		}
	}
	return r, s
}

// crowdChild has both other ends of the crowd, until its standard input ends.
func crowdChild(b *testing.B, front string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	fmt.Printf("\nbackend %s\n", l.Addr())
	stdin := bufio.NewReader(os.Stdin)
	if _, err := stdin.ReadString('\n'); err != nil {
		return
	}
	for range crowd {
		c, err := net.Dial("tcp", front)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		server, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer server.Close()
	}
	_, _ = io.Copy(io.Discard, stdin)
}
