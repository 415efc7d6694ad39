//go:build linux

package health

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// families are what a backend can listen on.
var families = []string{"127.0.0.1", "::1", "unix"}

// serve listens on a family and hands each connection to the function, which need
// not close it. It returns the address as Options takes it, and the listener.
func serve(t testing.TB, family string, handle func(net.Conn)) (string, net.Listener) {
	t.Helper()
	network, address := "tcp", net.JoinHostPort(family, "0")
	if family == "unix" {
		dir, err := os.MkdirTemp("", "health") //nolint:usetesting // t.TempDir has the test's name in it: too long for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		network, address = "unix", filepath.Join(dir, "s")
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wg.Wait()
	})
	if network == "unix" {
		return "unix:" + address, listener
	}
	return listener.Addr().String(), listener
}

// silently reads until the other side has enough, and says nothing.
func silently(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func says(lines ...string) func(net.Conn) {
	return func(conn net.Conn) {
		for _, line := range lines {
			_, _ = io.WriteString(conn, line)
		}
		silently(conn)
	}
}

func pongs(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line == "PING\r\n" {
			_, _ = io.WriteString(conn, "+PO")
			_, _ = io.WriteString(conn, "NG\r\n")
		} else {
			_, _ = io.WriteString(conn, "-ERR\r\n")
		}
	}
}

// web answers /well with 204, /body with 200, /moved with 302 and the rest with
// 503; a request for a host that is not the wanted one with 421.
func web(host string) func(net.Conn) {
	return func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			request, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			answer := "503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
			switch {
			case host != "" && request.Host != host:
				answer = "421 Misdirected Request\r\n\r\n"
			case request.URL.Path == "/well":
				answer = "103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
			case request.URL.Path == "/body":
				answer = "200 OK\r\nContent-Length: 4\r\n\r\nwell"
			case request.URL.Path == "/endless":
				answer = "200 OK\r\n\r\nfor ever and ever"
			case request.URL.Path == "/moved":
				answer = "302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 "+answer)
		}
	}
}

// authority makes a certificate for backend.test, 127.0.0.1 and ::1, and the pool
// that trusts it.
func authority(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"backend.test"},
		IPAddresses:  []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP("::1")},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

func secured(config *tls.Config, handle func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		server := tls.Server(conn, config)
		if server.Handshake() == nil {
			handle(server)
		}
	}
}

// once runs one check of a backend at the address.
func once(t testing.TB, address string, check Check, roots *x509.CertPool) verdict {
	t.Helper()
	c, err := newChecker(Options{Name: "b", Address: address, Check: check},
		environment{dial: new(net.Dialer).DialContext, roots: roots, random: never})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), c.probe.check.Timeout)
	defer cancel()
	v, cleanup := c.probe.run(ctx)
	cleanup()
	return v
}

func TestKinds(t *testing.T) {
	config, roots := authority(t)
	ping := ExchangeCheck{Send: "PING\r\n", Expect: "+PONG\r\n"}
	httpCheck := func(path, status string) Check {
		return Check{Kind: HTTP, HTTP: HTTPCheck{Path: path, Status: status}}
	}
	for _, tt := range []struct {
		name   string
		server func(net.Conn)
		check  Check
		want   string // in the error; empty: success
		slow   bool   // the error is that the timeout ran out
	}{
		{"tcp", silently, Check{}, "", false},

		{"http", web(""), httpCheck("/well", ""), "", false},
		{"http with a body", web(""), httpCheck("/body", "200"), "", false},
		{"http without an end", web(""), httpCheck("/endless", "200"), "", false},
		{"http not well", web(""), httpCheck("/", ""), "GET / was answered with 503 Service Unavailable, want 200-399", false},
		{"http moved", web(""), httpCheck("/moved", ""), "", false},
		{"http moved, not wanted", web(""), httpCheck("/moved", "200-299"), "302 Found", false},
		{"http 503 wanted", web(""), httpCheck("/", "200-299,503"), "", false},
		{"http host", web("www.test"), Check{Kind: HTTP, HTTP: HTTPCheck{Path: "/well", Host: "www.test"}}, "", false},
		{"http other host", web("www.test"), httpCheck("/well", ""), "421", false},
		{"http silent", silently, httpCheck("/well", ""), "no answer to GET /well within 2s", true},
		{"http babble", says("SSH-2.0-OpenSSH\r\n"), httpCheck("/well", ""), "malformed HTTP", false},
		{"http closed", func(net.Conn) {}, httpCheck("/well", ""), "http check of b at", false},

		{"exchange", pongs, Check{Kind: Exchange, Exchange: ping}, "", false},
		{"exchange, server first", says("220 mail ready\r\n"), Check{Kind: Exchange, Exchange: ExchangeCheck{Expect: "220 "}}, "", false},
		{"exchange, late in the answer", says(strings.Repeat("x", 5000), "ready"), Check{Kind: Exchange, Exchange: ExchangeCheck{Expect: "ready"}}, "", false},
		{"exchange, other answer", pongs, Check{Kind: Exchange, Exchange: ExchangeCheck{Send: "PONG\r\n", Expect: "+PONG"}}, `no "+PONG" (but "-ERR\r\n") within 2s`, true},
		{"exchange, other answer and closed", func(c net.Conn) { _, _ = io.WriteString(c, "-DENIED") }, Check{Kind: Exchange, Exchange: ExchangeCheck{Expect: "+PONG"}}, `answered "-DENIED" and closed`, false},
		{"exchange, closed", func(net.Conn) {}, Check{Kind: Exchange, Exchange: ExchangeCheck{Expect: "+PONG"}}, "closed without an answer", false},
		{"exchange, silent", silently, Check{Kind: Exchange, Exchange: ping}, `no "+PONG\r\n" within 2s`, true},
		{"exchange, babble", says(strings.Repeat("x", 2*maxAnswer)), Check{Kind: Exchange, Exchange: ping}, "is not in the first 65536 bytes", false},

		{"tls", secured(config, silently), Check{TLS: TLS{Enabled: true, ServerName: "backend.test"}}, "", false},
		{"tls, other name", secured(config, silently), Check{TLS: TLS{Enabled: true, ServerName: "other.test"}}, "other.test", false},
		{"tls, insecure", secured(config, silently), Check{TLS: TLS{Enabled: true, ServerName: "other.test", Insecure: true}}, "", false},
		{"tls, server silent", silently, Check{TLS: TLS{Enabled: true, Insecure: true}}, "no TLS handshake within 2s", true},
		{"tls, plain server", says("220 ready\r\n"), Check{TLS: TLS{Enabled: true, Insecure: true}}, "TLS handshake", false},
		{"https", secured(config, web("")), Check{Kind: HTTP, HTTP: HTTPCheck{Path: "/well"}, TLS: TLS{Enabled: true, ServerName: "backend.test"}}, "", false},
		{"https not well", secured(config, web("")), Check{Kind: HTTP, TLS: TLS{Enabled: true, ServerName: "backend.test"}}, "503", false},
		{"exchange by tls", secured(config, pongs), Check{Kind: Exchange, Exchange: ping, TLS: TLS{Enabled: true, ServerName: "backend.test"}}, "", false},
	} {
		for _, family := range families {
			t.Run(tt.name+"/"+family, func(t *testing.T) {
				t.Parallel()
				address, _ := serve(t, family, tt.server)
				check := tt.check
				check.Timeout = 20 * time.Second // a busy machine must not fail it
				if tt.slow {
					check.Timeout = 2 * time.Second // enough for a busy machine to connect
				}
				v := once(t, address, check, roots)
				switch {
				case tt.want == "" && v.err != nil:
					t.Errorf("failed: %v", v.err)
				case tt.want != "" && (v.err == nil || !strings.Contains(v.err.Error(), tt.want)):
					t.Errorf("error %v, want one with %q", v.err, tt.want)
				case v.timedOut != tt.slow, v.timedOut != errors.Is(v.err, os.ErrDeadlineExceeded):
					t.Errorf("timed out: %v, want %v: %v", v.timedOut, tt.slow, v.err)
				}
			})
		}
	}
}

// By default the name that is verified is the address that is checked, and the
// roots are the system's, which do not know this certificate.
func TestTLSDefaults(t *testing.T) {
	config, roots := authority(t)
	check := Check{TLS: TLS{Enabled: true}, Timeout: 20 * time.Second}
	for _, family := range families[:2] {
		address, _ := serve(t, family, secured(config, silently))
		if v := once(t, address, check, roots); v.err != nil {
			t.Errorf("%s: %v", family, v.err)
		}
		var unknown x509.UnknownAuthorityError
		if v := once(t, address, check, nil); !errors.As(v.err, &unknown) {
			t.Errorf("%s: %v, want that nobody known signed it", family, v.err)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	for _, family := range families {
		address, listener := serve(t, family, silently)
		_ = listener.Close()
		v := once(t, address, Check{Timeout: 20 * time.Second}, nil)
		wanted := syscall.ECONNREFUSED
		if family == "unix" {
			wanted = syscall.ENOENT // Go's listener removes its file
		}
		if !errors.Is(v.err, wanted) || v.timedOut || isLocal(v.err) {
			t.Errorf("%s: %v, want %v", family, v.err, wanted)
		}
		if v.err != nil && strings.Count(v.err.Error(), address) != 1 {
			t.Errorf("%s: the cause does not say the address once: %v", family, v.err)
		}
	}
}

func TestAnotherPlace(t *testing.T) {
	ping := Check{Kind: Exchange, Exchange: ExchangeCheck{Send: "PING\r\n", Expect: "+PONG"}, Timeout: 20 * time.Second}
	service, _ := serve(t, "127.0.0.1", says("not the health port"))
	side, _ := serve(t, "::1", pongs)
	unix, _ := serve(t, "unix", pongs)
	_, port, err := net.SplitHostPort(side)
	if err != nil {
		t.Fatal(err)
	}

	other := ping
	other.Address = "::1"
	if other.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	if v := once(t, service, other, nil); v.err != nil {
		t.Errorf("at another address and port: %v", v.err)
	}
	if v := once(t, unix, other, nil); v.err != nil {
		t.Errorf("of a unix socket, at an address and port: %v", v.err)
	}
	other = ping
	other.Address = unix
	if v := once(t, service, other, nil); v.err != nil {
		t.Errorf("at a unix socket: %v", v.err)
	}
	other = ping
	other.Port = mustPort(t, service)
	if v := once(t, net.JoinHostPort("127.0.0.1", "1"), Check{Port: other.Port}, nil); v.err != nil {
		t.Errorf("at another port: %v", v.err)
	}
}

func mustPort(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A check ends with a RST: the backend sees a reset and keeps no TIME_WAIT, and
// neither do we.
func TestEndsWithReset(t *testing.T) {
	for _, family := range families[:2] {
		seen := make(chan error, 1)
		address, _ := serve(t, family, func(conn net.Conn) {
			_, err := conn.Read(make([]byte, 1))
			seen <- err
		})
		if v := once(t, address, Check{Timeout: 20 * time.Second}, nil); v.err != nil {
			t.Fatal(v.err)
		}
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the backend saw %v, want ECONNRESET", family, err)
		}
	}
}

// A host that falls silent, by the kernel: when its queue of connections is full,
// Linux drops the SYNs that come.
func TestSilentHost(t *testing.T) {
	for _, family := range families[:2] {
		t.Run(family, func(t *testing.T) {
			listener, err := net.Listen("tcp", net.JoinHostPort(family, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			raw, err := listener.(*net.TCPListener).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var listenErr error
			if err := errors.Join(raw.Control(func(fd uintptr) { listenErr = syscall.Listen(int(fd), 0) }), listenErr); err != nil {
				t.Fatal(err)
			}
			accepting := make(chan struct{})
			go func() {
				defer close(accepting)
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					_ = conn.Close()
				}
			}()

			changes := make(chan Change, 10)
			check := Check{Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Fall: 2}
			c, err := New(Options{Address: listener.Addr().String(), Check: check, OnChange: func(c Change) { changes <- c }})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- c.Run(t.Context()) }()
			defer func() {
				_ = c.Close()
				<-done
			}()
			if change := <-changes; change.State != Up {
				t.Fatalf("%+v, want up", change)
			}

			fault := time.Now()
			if err := listener.(*net.TCPListener).SetDeadline(fault); err != nil {
				t.Fatal(err)
			}
			<-accepting
			filler, err := net.DialTimeout("tcp", listener.Addr().String(), time.Second)
			if err == nil { // else a check of ours fills the queue
				defer filler.Close()
			}
			change := <-changes
			if change.State != Down || !errors.Is(change.Cause, os.ErrDeadlineExceeded) || !change.LastFailedStart.After(change.FirstFailedStart) {
				t.Fatalf("%+v, want down because nothing came back", change)
			}
			t.Logf("down %v after the fault (bound 300ms): %v", change.At.Sub(fault).Round(time.Millisecond), change.Cause)
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	address, _ := serve(b, "127.0.0.1", silently)
	c, err := New(Options{Name: "b", Address: address})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		v, cleanup := c.probe.run(ctx)
		cleanup()
		cancel()
		if v.err != nil {
			b.Fatal(v.err)
		}
	}
}
