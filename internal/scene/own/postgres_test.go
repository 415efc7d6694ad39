//go:build linux

package own_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/programs"
)

const (
	guide    = "../../../docs/guide/addresses.md"
	examples = "../../../packaging/examples/postgresql"
)

// TestPostgreSQLGuide does what the guide's first example says, with its own
// file and its own scripts: a planned move loses no write, the old primary
// follows again, and when the new one's host dies it is promoted.
func TestPostgreSQLGuide(t *testing.T) {
	program := asProgram(t)
	if _, err := exec.LookPath("psql"); err != nil {
		t.Skip(err)
	}
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(family.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("the test took too long"))
			defer cancel()
			p := newDatabases(ctx, t, program, family)
			p.write(ctx, "create table t (n int)")
			p.write(ctx, "insert into t values (1)")
			p.await(ctx, "the standby follows", func() bool { return p.holdfast(ctx, 1, "status", "--check") == nil })
			for i := range 20 {
				p.write(ctx, fmt.Sprintf("insert into t values (%d)", i+2))
			}
			if err := p.holdfast(ctx, 0, "address", "release", "db"); err != nil {
				t.Fatal(err)
			}
			// The application asks again until it is served.
			p.await(ctx, "the other server is promoted", func() bool { return p.try(ctx, "insert into t values (100)") == nil })
			if n := p.ask(ctx, "select count(*) from t"); n != "22" {
				t.Errorf("after a planned move there are %s rows, want 22", n)
			}
			if where := p.owner(ctx); where != 1 {
				t.Errorf("after the move node %d has the address", where+1)
			}
			p.role(ctx, 0, "rejoin")
			p.await(ctx, "the first server follows", func() bool { return p.holdfast(ctx, 0, "status", "--check") == nil })
			p.write(ctx, "insert into t values (101)")
			p.await(ctx, "the first server has what was written", func() bool { return p.local(ctx, 0, "select count(*) from t") == "23" })
			if _, err := p.nodes[1].Die(); err != nil {
				t.Fatal(err)
			}
			p.await(ctx, "the first server is promoted", func() bool { return p.try(ctx, "insert into t values (102)") == nil })
			if n := p.ask(ctx, "select count(*) from t"); n != "24" {
				t.Errorf("after a death there are %s rows, want 24", n)
			}
		})
	}
}

// databases are two nodes with a PostgreSQL each.
type databases struct {
	t       *testing.T
	lab     *lab.Lab
	program *scene.Program
	family  lab.Family
	nodes   [2]*lab.Host
	dirs    [2]string
	servers [2]*programs.Server
	vip     netip.Addr
}

const postgresPort = 5432

func newDatabases(ctx context.Context, t *testing.T, program *scene.Program, family lab.Family) *databases {
	t.Helper()
	top, err := lab.OneArm(lab.Size{Clients: 1, FarClients: 1, Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(ctx, top, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	p := &databases{t: t, lab: l, program: program, family: family, vip: lab.Address(family, 100).Addr()}
	dir, err := l.Dir()
	if err != nil {
		t.Fatal(err)
	}
	p.run(ctx, l.Host("client1"), program.Command("pair", "init", filepath.Join(dir, "keys")))
	for i := range p.nodes {
		p.nodes[i] = l.Host(fmt.Sprintf("node%d", i+1))
		p.dirs[i] = filepath.Join(dir, fmt.Sprintf("pg%d", i+1))
		if err := os.Mkdir(p.dirs[i], 0o755); err != nil {
			t.Fatal(err)
		}
		p.startServer(ctx, i)
	}
	for i := range p.nodes {
		p.startNode(ctx, i, filepath.Join(dir, "keys", fmt.Sprintf("node%d", i+1)))
		if i == 0 {
			p.await(ctx, "the first node owns the address", func() bool { return p.try(ctx, "select 1") == nil })
		}
	}
	return p
}

func (p *databases) startServer(ctx context.Context, i int) {
	p.t.Helper()
	h, primary := p.nodes[i], ""
	if i == 1 {
		primary = p.nodes[0].AddrPort(p.family, postgresPort).String()
	}
	var err error
	p.servers[i], err = programs.StartPostgresNode(ctx, programs.Options{
		Dir: p.dirs[i], Host: h.Addr(p.family).String(), Port: postgresPort, Dial: h.Dial, Listen: h.Listen,
		Start: func(c programs.Command) (programs.Process, error) {
			return h.Start(lab.Command{Argv: c.Argv, Dir: c.Dir, User: c.User})
		},
	}, primary)
	if errors.Is(err, exec.ErrNotFound) {
		p.t.Skip(err)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// startNode runs the guide's own file, with the addresses of the laboratory.
func (p *databases) startNode(ctx context.Context, i int, keys string) {
	p.t.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		p.t.Fatal(err)
	}
	_, text2, _ := strings.Cut(string(text), "```yaml\n")
	config, _, ok := strings.Cut(text2, "```\n")
	if !ok || !strings.Contains(config, "10.0.0.100/24") {
		p.t.Fatalf("the guide's first file is not the one that this test knows: %s", config)
	}
	own, other := p.nodes[i], p.nodes[1-i]
	priority := []string{"200", "100"}[i]
	config = strings.NewReplacer(
		"node: pg1", "node: "+own.Name(),
		"listen: 10.0.0.11:7420", fmt.Sprintf("listen: %q\n  keys: %s", own.AddrPort(p.family, 7420), keys),
		"peer: 10.0.0.12:7420", fmt.Sprintf("peer: %q", other.AddrPort(p.family, 7420)),
		"witness: 10.0.0.1 ", fmt.Sprintf("witness: %q ", p.lab.Host("router").Addr(p.family)),
		"10.0.0.100/24", fmt.Sprintf("%q", lab.Address(p.family, 100)),
		"priority: 200", "priority: "+priority,
		"/etc/holdfast/postgresql/role", filepath.Join(p.absolute(examples), "role"),
		"/etc/holdfast/postgresql/settings", filepath.Join(p.dirs[i], "settings"),
	).Replace(config)
	config += fmt.Sprintf("admin: {socket: %s}\ndirectories: {runtime: %s, bpf: %s}\n", p.socket(i), p.dirs[i], filepath.Join(p.dirs[i], "bpf"))
	settings, err := os.ReadFile(filepath.Join(examples, "settings"))
	if err != nil {
		p.t.Fatal(err)
	}
	lines := string(settings) + fmt.Sprintf("PGDATA=%[1]s/postgres\nPGSOCKET=%[1]s\nPEER=%[2]s\nFOLLOWED=%[1]s/followed\nPGCONF=$PGDATA/postgresql.conf\n", p.dirs[i], other.Addr(p.family))
	// There is no service manager in a laboratory.
	lines += fmt.Sprintf("START=\"$AS $PGBIN/pg_ctl -D $PGDATA -w -s -o -k%[1]s -l %[1]s/postgres/again.log start\"\n", p.dirs[i])
	// What is said of the other server is said of the laboratory's.
	lines += "SOURCE=\"host=$PEER port=$PGPORT user=postgres dbname=postgres\"\n"
	file := filepath.Join(p.dirs[i], "holdfast.yaml")
	for name, text := range map[string]string{file: config, filepath.Join(p.dirs[i], "settings"): lines} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	n, err := own.Start(p.program.Command("run", "-c", file))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Logf("%s said:\n%s", own.Name(), n.Output())
		}
	})
	if err := n.Await(ctx, "msg=ready"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *databases) absolute(path string) string {
	p.t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		p.t.Fatal(err)
	}
	return path
}

func (p *databases) socket(i int) string { return filepath.Join(p.dirs[i], "holdfast.sock") }

// run runs a command that must succeed.
func (p *databases) run(ctx context.Context, h *lab.Host, c lab.Command) {
	p.t.Helper()
	process, err := h.Start(c)
	if err == nil {
		err = process.Wait(ctx)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// holdfast runs a command on a node.
func (p *databases) holdfast(ctx context.Context, i int, args ...string) error {
	process, err := p.nodes[i].Start(p.program.Command(append(args, "--socket", p.socket(i))...))
	if err != nil {
		return err
	}
	return process.Wait(ctx)
}

// role runs the guide's script by hand, as the guide says.
func (p *databases) role(ctx context.Context, i int, what string) {
	p.t.Helper()
	p.run(ctx, p.nodes[i], lab.Command{Argv: []string{filepath.Join(p.absolute(examples), "role"), what, filepath.Join(p.dirs[i], "settings")}})
}

// psql runs a statement from a host.
func (p *databases) psql(ctx context.Context, h *lab.Host, server, statement string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := h.Run(ctx, "psql", "-X", "-A", "-t", "-q", "-h", server, "-p", fmt.Sprint(postgresPort), "-U", "postgres", "-c", statement, "postgres")
	return strings.TrimSpace(out), err
}

// try runs a statement as an application does, by the address.
func (p *databases) try(ctx context.Context, statement string) error {
	_, err := p.psql(ctx, p.lab.Host("client1"), p.vip.String(), statement)
	return err
}

func (p *databases) write(ctx context.Context, statement string) {
	p.t.Helper()
	if err := p.try(ctx, statement); err != nil {
		p.t.Fatal(err)
	}
}

func (p *databases) ask(ctx context.Context, statement string) string {
	p.t.Helper()
	out, err := p.psql(ctx, p.lab.Host("client1"), p.vip.String(), statement)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// local asks one of the servers by its socket; "" if it does not answer.
func (p *databases) local(ctx context.Context, i int, statement string) string {
	out, _ := p.psql(ctx, p.nodes[i], p.dirs[i], statement)
	return out
}

// owner is which node has the address, counted from 0; -1: none or both.
func (p *databases) owner(ctx context.Context) int {
	p.t.Helper()
	owner := -1
	for i, h := range p.nodes {
		out, err := h.Run(ctx, "ip", "-o", "address", "show", "to", p.vip.String())
		if err != nil {
			p.t.Fatal(err)
		}
		switch {
		case !strings.Contains(out, p.vip.String()):
		case owner >= 0:
			return -1
		default:
			owner = i
		}
	}
	return owner
}

func (p *databases) await(ctx context.Context, what string, met func() bool) {
	p.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.t.Fatalf("not so: %s: %v", what, context.Cause(ctx))
		}
	}
}
