//go:build linux

package programs

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/holdfast-net/holdfast/internal/probe"
)

// Load is a real client's run against a server.
type Load struct {
	Rate   float64 // requests or transactions per second
	Failed int     // requests, transactions or connections that the client says failed
	Output string
}

// RedisBenchmark runs redis-benchmark with n SET and n GET requests over a
// number of connections. Rate is that of GET.
func RedisBenchmark(ctx context.Context, start func(Command) (Process, error), address string, n, connections int) (Load, error) {
	return load(ctx, start, "redis-benchmark", "redis-tools", address, `GET: ([0-9.]+) requests per second`, `(?m)^(Error.*|.*[Rr]eset.*|.*closed.*)$`,
		func(host, port string) []string {
			return []string{"-h", host, "-p", port, "-n", strconv.Itoa(n), "-c", strconv.Itoa(connections), "-t", "set,get", "-q"}
		})
}

// Pgbench makes pgbench's tables (scale 1) and runs its transactions for a
// time, which it rounds down to whole seconds, over a number of connections.
func Pgbench(ctx context.Context, start func(Command) (Process, error), address string, d time.Duration, connections int) (Load, error) {
	if d < time.Second {
		return Load{}, fmt.Errorf("programs: Pgbench runs for whole seconds, not %v", d)
	}
	base := func(host, port string) []string { return []string{"-h", host, "-p", port, "-U", "postgres"} }
	if l, err := load(ctx, start, "pgbench", "postgresql-15", address, `done in ([0-9.]+) s`, "", func(host, port string) []string {
		return append(base(host, port), "-i", "-q", "postgres")
	}); err != nil {
		return l, err
	}
	return load(ctx, start, "pgbench", "postgresql-15", address, `tps = ([0-9.]+)`, `(?m)^(?:.*aborted.*|.*error:.*|number of failed transactions: [1-9].*)$`,
		func(host, port string) []string {
			return append(base(host, port), "-n", "-c", strconv.Itoa(connections), "-T", strconv.Itoa(int(d/time.Second)), "postgres")
		})
}

// Wrk runs wrk for a time against "/" over a number of kept connections.
func Wrk(ctx context.Context, start func(Command) (Process, error), address string, d time.Duration, connections int) (Load, error) {
	return load(ctx, start, "wrk", "wrk", address, `Requests/sec:\s+([0-9.]+)`, `(?m)^\s*(Socket errors.*|Non-2xx.*)$`,
		func(host, port string) []string {
			return []string{"-t", "1", "-c", strconv.Itoa(connections), "-d", strconv.FormatFloat(d.Seconds(), 'f', 0, 64) + "s", "http://" + net.JoinHostPort(host, port) + "/"}
		})
}

// load runs a client to its end and reads its figures: without a rate it has failed.
func load(ctx context.Context, start func(Command) (Process, error), name, pkg, address, rate, failed string, args func(host, port string) []string) (Load, error) {
	path, err := probe.Program(name, pkg, postgresBin+name)
	if err != nil {
		return Load{}, fmt.Errorf("programs: %w", err)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return Load{}, fmt.Errorf("programs: %s: %w", name, err)
	}
	if start == nil {
		start = startHere
	}
	p, err := start(Command{Argv: append([]string{path}, args(host, port)...)})
	if err != nil {
		return Load{}, fmt.Errorf("programs: starting %s: %w", name, err)
	}
	out, err := finish(ctx, p, name)
	l := Load{Output: out}
	if err != nil {
		return l, err
	}
	if failed != "" {
		l.Failed = len(regexp.MustCompile(failed).FindAllString(out, -1))
	}
	m := regexp.MustCompile(rate).FindStringSubmatch(out)
	if m == nil {
		return l, fmt.Errorf("programs: %s against %s gives no figures: %s", name, address, said(p))
	}
	l.Rate, err = strconv.ParseFloat(m[1], 64)
	if err != nil {
		return l, fmt.Errorf("programs: %s: %w", name, err)
	}
	return l, nil
}
