// Package programs starts real servers and their load generators, so that what
// stands between the two is tried with traffic that nobody wrote for it:
// redis-server with redis-benchmark, PostgreSQL with pgbench, nginx with wrk; and
// keepalived, which owns addresses, alone or beside another one.
//
//	server, err := programs.StartRedis(ctx, programs.Options{Dir: dir})
//	defer server.Close()
//	load, err := programs.RedisBenchmark(ctx, nil, server.Address, 4000, 50)
//
// A server is ready when it has been started: it has answered in its own
// protocol. It keeps its files in [Options.Dir], and listens where nobody else
// does. Servers and load generators run beside this process, or wherever the
// caller's function starts them: on a host of a lab, what its Start, Dial and
// Listen do.
//
// A program that is not installed is an error that is exec.ErrNotFound and names
// the Debian package: a test says by it why it is left out.
package programs
