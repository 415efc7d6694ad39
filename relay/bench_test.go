//go:build linux

package relay

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/rtnl"
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

// BenchmarkLegs makes connections with an exchange of one byte each, one after the
// other, through a relay whose backend legs come from the machine's own address, or
// from the one that clients connect to, or that and somebody is told of each. It
// needs root: it runs in a namespace of its own, in a process of its own.
func BenchmarkLegs(b *testing.B) {
	if os.Getenv(inNamespace) == "" {
		cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkLegs$", "-test.benchtime="+flag.Lookup("test.benchtime").Value.String())
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := netnstest.New(b).Do(cmd.Run); err != nil {
			b.Fatal(err)
		}
		b.SkipNow() // the other process has said it all
	}
	h, err := rtnl.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	lo, err := h.Index("lo")
	if err != nil {
		b.Fatal(err)
	}
	front, back := netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("10.8.8.8")
	for _, a := range []netip.Addr{front, back} {
		if err := h.AddAddress(lo, rtnl.Address{Prefix: netip.PrefixFrom(a, 32)}); err != nil {
			b.Fatal(err)
		}
	}
	for name, value := range map[string]string{"tcp_tw_reuse": "1", "ip_local_port_range": "1024 65535"} { // the client's
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
			b.Fatal(err)
		}
	}
	server, err := net.Listen("tcp", netip.AddrPortFrom(back, 100).String())
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	for _, v := range []struct {
		name string
		port uint16
		told func([]LegChange)
	}{{"own", 101, nil}, {"address", 102, nil}, {"address_and_told", 103, func([]LegChange) {}}} {
		b.Run(v.name, func(b *testing.B) {
			r, err := New(Options{Loops: 1, OnLegs: v.told})
			if err != nil {
				b.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- r.Run(b.Context()) }()
			defer func() { r.Close(); <-done }()
			o := ServiceOptions{
				Listen:   []Address{AddressFrom(netip.AddrPortFrom(front, v.port))},
				Backends: []Backend{{Name: "b", Address: MustParseAddress(server.Addr().String()), Weight: 1}},
			}
			if v.name != "own" {
				o.Groups = [][]netip.Addr{{front}}
			}
			s, err := r.Listen(o)
			if err != nil {
				b.Fatal(err)
			}
			buf := []byte{1}
			for b.Loop() {
				c, err := net.Dial("tcp", s.Addrs()[0].String())
				if err != nil {
					b.Fatal(err)
				}
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
			if u := r.Unbound(); u != (Unbound{}) {
				b.Errorf("legs that were not bound: %+v", u)
			}
		})
	}
}
