//go:build linux

package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/probe"
)

// Options says where a server runs.
type Options struct {
	Dir  string // where its configuration and data go; it must exist; required
	Host string // the IP address to listen on; "" is 127.0.0.1
	Port int    // 0: a free one

	// Start, Dial and Listen place the program, the question whether it is
	// ready, and the search for a free port: on a host of a lab, where they
	// are that host's. nil: beside this process. Dial and Listen are as
	// [net.Dialer.DialContext] and [net.ListenConfig.Listen].
	Start  func(Command) (Process, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Server is a server that is ready.
type Server struct {
	Name    string
	Address string // host:port
	Process Process

	stop syscall.Signal
}

// Close asks the program to end, in its own way, kills it after five seconds,
// and returns when it has ended. More calls do nothing.
func (p *Server) Close() error {
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{p.stop, 5 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		if _, err := p.Process.Signal(step.sig); err != nil {
			if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
				return nil
			}
			return fmt.Errorf("programs: ending %s: %w", p.Name, err)
		}
		select {
		case <-p.Process.Done():
			return nil
		case <-time.After(step.wait):
		}
	}
	return fmt.Errorf("programs: %s (pid %d) does not end", p.Name, p.Process.PID())
}

// fill checks the options and sets their defaults.
func (o *Options) fill(ctx context.Context) error {
	if o.Start == nil {
		o.Start = startHere
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Listen == nil {
		o.Listen = new(net.ListenConfig).Listen
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if net.ParseIP(o.Host) == nil {
		return fmt.Errorf("programs: Host %q is not an IP address", o.Host)
	}
	if o.Port < 0 || o.Port > 65535 {
		return fmt.Errorf("programs: Port %d is not in 0..65535", o.Port)
	}
	if info, err := os.Stat(o.Dir); err != nil || !info.IsDir() {
		return fmt.Errorf("programs: Dir %q is not a directory", o.Dir)
	}
	if o.Port == 0 {
		port, err := freePort(ctx, o.Listen, o.Host)
		if err != nil {
			return err
		}
		o.Port = port
	}
	return nil
}

// launch starts a server and waits until it is ready; if it never is, it is ended.
func (o *Options) launch(ctx context.Context, name string, c Command, stop syscall.Signal, ready func(ctx context.Context, address string) error) (*Server, error) {
	process, err := o.Start(c)
	if err != nil {
		return nil, fmt.Errorf("programs: starting %s: %w", name, err)
	}
	p := &Server{Name: name, Address: net.JoinHostPort(o.Host, strconv.Itoa(o.Port)), Process: process, stop: stop}
	if err := awaitServer(ctx, process, name, func(ctx context.Context) error { return ready(ctx, p.Address) }); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// StartRedis starts a redis-server that keeps nothing on disk. ctx bounds the
// start, not the server's life.
func StartRedis(ctx context.Context, o Options) (*Server, error) {
	path, err := probe.Program("redis-server", "redis-server")
	if err != nil {
		return nil, fmt.Errorf("programs: %w", err)
	}
	if err := o.fill(ctx); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("bind %s\nport %d\nprotected-mode no\nsave \"\"\nappendonly no\ndir %q\ntcp-backlog 4096\n", o.Host, o.Port, o.Dir)
	file, err := o.write("redis.conf", conf)
	if err != nil {
		return nil, err
	}
	return o.launch(ctx, "redis-server", Command{Argv: []string{path, file}, Dir: o.Dir}, syscall.SIGTERM,
		func(ctx context.Context, address string) error {
			return say(ctx, o.Dial, address, []byte("PING\r\n"), "+PONG\r\n")
		})
}

// StartNginx starts an nginx with one worker that serves "/" with 9 bytes from
// memory, and Dir/www below "/files/".
func StartNginx(ctx context.Context, o Options) (*Server, error) {
	path, err := probe.Program("nginx", "nginx")
	if err != nil {
		return nil, fmt.Errorf("programs: %w", err)
	}
	if err := o.fill(ctx); err != nil {
		return nil, err
	}
	www := filepath.Join(o.Dir, "www")
	if err := os.MkdirAll(www, 0o755); err != nil {
		return nil, fmt.Errorf("programs: nginx: %w", err)
	}
	var conf strings.Builder
	if os.Geteuid() == 0 {
		conf.WriteString("user root;\n") // Dir may be closed to everybody else
	}
	fmt.Fprintf(&conf, "daemon off;\nworker_processes 1;\nerror_log stderr;\npid %q;\nevents { worker_connections 8192; }\n", filepath.Join(o.Dir, "nginx.pid"))
	conf.WriteString("http {\n  access_log off;\n  keepalive_requests 1000000000;\n")
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&conf, "  %s_temp_path %q;\n", kind, filepath.Join(o.Dir, "nginx-"+kind))
	}
	fmt.Fprintf(&conf, "  server {\n    listen %s backlog=4096;\n    location / { return 200 \"holdfast\\n\"; }\n    location /files/ { alias %q; }\n  }\n}\n",
		net.JoinHostPort(o.Host, strconv.Itoa(o.Port)), www+"/")
	file, err := o.write("nginx.conf", conf.String())
	if err != nil {
		return nil, err
	}
	return o.launch(ctx, "nginx", Command{Argv: []string{path, "-e", "stderr", "-c", file}, Dir: o.Dir}, syscall.SIGTERM,
		func(ctx context.Context, address string) error {
			return say(ctx, o.Dial, address, []byte("GET / HTTP/1.0\r\n\r\n"), "HTTP/1.1 200 OK\r\n")
		})
}

// write puts a configuration into Dir.
func (o *Options) write(name, text string) (path string, err error) {
	path = filepath.Join(o.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("programs: %w", err)
	}
	return path, nil
}

// awaitServer calls ready until it succeeds, the process has ended or ctx is over.
func awaitServer(ctx context.Context, p Process, what string, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		err := ready(try)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("programs: %s ended before it was ready; it said: %s", what, said(p))
		case <-ctx.Done():
			return fmt.Errorf("programs: %s is not ready: %w (%w); it said: %s", what, ctx.Err(), err, said(p))
		}
	}
}

// say sends something and demands an answer that begins with want.
func say(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), address string, send []byte, want string) error {
	c, err := dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := c.Write(send); err != nil {
		return err
	}
	got := make([]byte, len(want))
	for n := 0; n < len(got); {
		k, err := c.Read(got[n:])
		n += k
		if err != nil && n < len(got) {
			return err
		}
	}
	if !bytes.Equal(got, []byte(want)) {
		return fmt.Errorf("it answers %q, not %q", got, want)
	}
	return nil
}

// freePort asks the kernel for a port that nobody has.
func freePort(ctx context.Context, listen func(ctx context.Context, network, address string) (net.Listener, error), host string) (int, error) {
	l, err := listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, fmt.Errorf("programs: looking for a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
