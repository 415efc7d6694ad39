//go:build linux

package programs

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// psql runs one statement, and returns its answer.
func psql(ctx context.Context, address, statement string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "psql", "-h", host, "-p", port, "-U", "postgres", "-X", "-A", "-t", "-c", statement, "postgres").CombinedOutput()
	if err != nil {
		return "", errors.New(strings.TrimSpace(string(out)) + ": " + err.Error())
	}
	return strings.TrimSpace(string(out)), nil
}

// TestPostgresPair: what is written to the primary is on the standby, which
// refuses to be written to until it is promoted.
func TestPostgresPair(t *testing.T) {
	if _, err := exec.LookPath("psql"); err != nil {
		t.Skip(err)
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			ctx := bounded(t)
			dir := openDir(t)
			start := func(name, primary string) *Server {
				t.Helper()
				d := filepath.Join(dir, name)
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
				s, err := StartPostgresNode(ctx, Options{Dir: d, Host: host}, primary)
				if errors.Is(err, exec.ErrNotFound) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
				return s
			}
			ask := func(s *Server, statement string) string {
				t.Helper()
				out, err := psql(ctx, s.Address, statement)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			primary := start("one", "")
			standby := start("two", primary.Address)
			ask(primary, "create table t as select 7 as n")
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				if n, err := psql(ctx, standby.Address, "select n from t"); err == nil && n == "7" {
					break
				} else if ctx.Err() != nil {
					t.Fatalf("the standby does not have it: %q, %v", n, err)
				}
				<-tick.C
			}
			if _, err := psql(ctx, standby.Address, "insert into t values (8)"); err == nil {
				t.Error("a standby was written to")
			}
			ask(standby, "select pg_promote()")
			ask(standby, "insert into t values (8)")
			_, port, err := net.SplitHostPort(standby.Address)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "two", ".s.PGSQL."+port)); err != nil {
				t.Error(err)
			}
		})
	}
}
