//go:build linux

package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"syscall"
	"time"
)

// maxAnswer bounds what a check reads.
const maxAnswer = 64 << 10

// environment is what the checker has from the operating system.
type environment struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	roots  *x509.CertPool // nil: the system's
	random func() float64 // in [0, 1)
}

// probe is one backend's check, prepared; it has no state.
type probe struct {
	name     string
	backend  string // its address, for commands
	check    Check
	target   target
	statuses []statusRange
	program  program // of Command
	env      environment
}

// verdict is the outcome of one check.
type verdict struct {
	err      error     // nil: success
	timedOut bool      // err is that the timeout ran out
	at       time.Time // when it was known
}

// run checks once. The context ends at the check's deadline. What is left to do
// after the verdict is in cleanup.
func (p *probe) run(ctx context.Context) (v verdict, cleanup func()) {
	var err error
	var missing string // what had not come when the time was over
	if p.check.Kind == Command {
		missing, cleanup, err = p.command(ctx)
	} else {
		missing, cleanup, err = p.connect(ctx)
	}
	v = verdict{err: err, at: time.Now()}
	if err == nil {
		return v, cleanup
	}
	where := p.name
	switch at := p.target.String(); {
	case p.check.Kind == Command:
		where += " by " + p.program.path
	case at != p.name:
		where += " at " + at
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		v.timedOut = true
		v.err = &failure{fmt.Sprintf("%v check of %s: no %s within %v", p.check.Kind, where, missing, p.check.Timeout), os.ErrDeadlineExceeded}
		return v, cleanup
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // without the address a second time
	}
	v.err = fmt.Errorf("%v check of %s: %w", p.check.Kind, where, err)
	return v, cleanup
}

// failure is an error with a sentence of its own.
type failure struct {
	sentence string
	err      error
}

func (f *failure) Error() string { return f.sentence }
func (f *failure) Unwrap() error { return f.err }

func (p *probe) connect(ctx context.Context) (missing string, cleanup func(), err error) {
	conn, err := p.env.dial(ctx, p.target.network, p.target.address)
	if err != nil {
		return "connection", func() {}, err
	}
	if tcp, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		// A failure here costs a TIME_WAIT and says nothing about the backend.
		_ = tcp.SetLinger(0)
	}
	// The context ends at the deadline, or earlier when the checker is closed.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	cleanup = func() {
		stop()
		_ = conn.Close()
	}

	stream := conn
	if p.check.TLS.Enabled {
		secured := tls.Client(conn, &tls.Config{
			ServerName:         p.serverName(),
			RootCAs:            p.env.roots,
			InsecureSkipVerify: p.check.TLS.Insecure, // the user's explicit choice
		})
		if err := secured.HandshakeContext(ctx); err != nil {
			return "TLS handshake", cleanup, fmt.Errorf("TLS handshake: %w", err)
		}
		stream = secured
	}
	switch p.check.Kind {
	case HTTP:
		return "answer to GET " + p.check.HTTP.Path, cleanup, p.http(stream)
	case Exchange:
		missing, err := p.exchange(stream)
		return missing, cleanup, err
	case TCP, Command, None:
	}
	return "", cleanup, nil
}

func (p *probe) serverName() string {
	if name := p.check.TLS.ServerName; name != "" {
		return name
	}
	return p.target.host
}

func (p *probe) http(stream net.Conn) error {
	host := p.check.HTTP.Host
	switch {
	case host != "":
	case p.target.network == "unix":
		host = "localhost"
	default:
		host = p.target.address
	}
	request := "GET " + p.check.HTTP.Path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: holdfast-health\r\nAccept: */*\r\n\r\n"
	if _, err := io.WriteString(stream, request); err != nil {
		return err
	}
	reader := bufio.NewReader(io.LimitReader(stream, 2*maxAnswer))
	for {
		response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // that would read it to its end, which may never come
		if err != nil {
			return fmt.Errorf("answer to GET %s: %w", p.check.HTTP.Path, err)
		}
		if response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
			continue // provisional: the answer follows
		}
		// A short body is read, so that the server is not interrupted in
		// writing it; what it says, and whether it comes, does not matter.
		if n := response.ContentLength; n > 0 && n <= maxAnswer {
			_, _ = io.CopyN(io.Discard, response.Body, n)
		}
		code := response.StatusCode
		if !slices.ContainsFunc(p.statuses, func(r statusRange) bool { return r.from <= code && code <= r.to }) {
			return fmt.Errorf("GET %s was answered with %s, want %s", p.check.HTTP.Path, response.Status, p.check.HTTP.Status)
		}
		return nil
	}
}

func (p *probe) exchange(stream net.Conn) (missing string, err error) {
	expect := []byte(p.check.Exchange.Expect)
	missing = fmt.Sprintf("%q", expect)
	// Who closes at once may have spoken before: a failed write is not the end.
	var sendErr error
	if send := p.check.Exchange.Send; send != "" {
		_, sendErr = io.WriteString(stream, send)
	}
	answer := make([]byte, 0, 512)
	for {
		if len(answer) == cap(answer) {
			answer = slices.Grow(answer, len(answer))
		}
		n, err := stream.Read(answer[len(answer):min(cap(answer), maxAnswer)])
		answer = answer[:len(answer)+n]
		switch {
		case bytes.Contains(answer, expect):
			return "", nil
		case err != nil && sendErr != nil:
			return missing, sendErr
		case err == nil && len(answer) < maxAnswer:
			continue
		case err == nil:
			return missing, fmt.Errorf("%q is not in the first %d bytes of the answer, which begins %q", expect, maxAnswer, shortened(answer))
		case len(answer) == 0 && errors.Is(err, io.EOF):
			return missing, fmt.Errorf("closed without an answer, want %q", expect)
		case errors.Is(err, io.EOF):
			return missing, fmt.Errorf("answered %q and closed, want %q", shortened(answer), expect)
		case len(answer) > 0:
			return fmt.Sprintf("%q (but %q)", expect, shortened(answer)), err
		}
		return missing, err
	}
}

func shortened(b []byte) []byte { return b[:min(len(b), 100)] }

// isLocal reports whether an error says that this machine had not the means to
// check, and so nothing about the backend.
func isLocal(err error) bool {
	for _, errno := range [...]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	_, ok := errors.AsType[*startError](err)
	return ok && errors.Is(err, syscall.EAGAIN) // the limit of processes
}
