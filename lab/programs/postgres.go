//go:build linux

package programs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// postgresBin is where Debian keeps the server's own programs.
const postgresBin = "/usr/lib/postgresql/*/bin/"

// postgresUser is who the server runs as where this process is root, which it
// refuses.
const postgresUser = "postgres"

// StartPostgres makes a database cluster in Dir/postgres, if none is there, and
// starts a PostgreSQL on it that trusts everybody and does not wait for the
// disk. Started by root it runs as the user postgres, because it refuses root:
// the way to Dir must be open to that user.
func StartPostgres(ctx context.Context, o Options) (*Server, error) {
	return startPostgres(ctx, o, func(o Options, c *cluster) ([]string, error) {
		return []string{
			"listen_addresses=" + o.Host, "unix_socket_directories=", "port=" + strconv.Itoa(o.Port),
			"fsync=off", "synchronous_commit=off", "full_page_writes=off",
			"shared_buffers=32MB", "dynamic_shared_memory_type=mmap", "max_connections=200",
		}, c.initialize(ctx, o)
	})
}

// StartPostgresNode is StartPostgres for one of two nodes that have an address
// between them: it listens on every address of its host, those that come later
// among them, and on a unix socket in Dir. With a primary, host:port, its cluster
// begins as a copy of that one's and follows it, read-only, until it is promoted.
// Its settings are in its files: it can be started by others too, and follow a
// new primary by pg_rewind.
func StartPostgresNode(ctx context.Context, o Options, primary string) (*Server, error) {
	return startPostgres(ctx, o, func(o Options, c *cluster) ([]string, error) {
		begin := func() error { return c.initialize(ctx, o) }
		if primary != "" {
			begin = func() error { return c.copy(ctx, o, primary) }
		}
		if err := begin(); err != nil {
			return nil, err
		}
		cred, err := c.credential()
		if err == nil && cred != nil {
			err = os.Chown(o.Dir, int(cred.Uid), int(cred.Gid)) // its socket is made there
		}
		if err == nil {
			err = c.configure(fmt.Sprintf("listen_addresses = '*'\nport = %d\nunix_socket_directories = '%s'\nfsync = off\nwal_log_hints = on\n"+
				"shared_buffers = 32MB\ndynamic_shared_memory_type = mmap\n", o.Port, o.Dir))
		}
		return nil, err
	})
}

// cluster is the data directory of a server.
type cluster struct {
	dir, user string // user: "" is this process's
}

func startPostgres(ctx context.Context, o Options, begin func(Options, *cluster) (settings []string, err error)) (*Server, error) {
	server, err := probe.Program("postgres", "postgresql-15", postgresBin+"postgres")
	if err != nil {
		return nil, fmt.Errorf("programs: %w", err)
	}
	if err := o.fill(ctx); err != nil {
		return nil, err
	}
	c := &cluster{dir: filepath.Join(o.Dir, "postgres")}
	if os.Geteuid() == 0 {
		c.user = postgresUser
	}
	if err := c.makeDir(); err != nil {
		return nil, fmt.Errorf("programs: postgres: %w", err)
	}
	settings, err := begin(o, c)
	if err != nil {
		return nil, fmt.Errorf("programs: postgres: %w", err)
	}
	argv := []string{server, "-D", c.dir}
	for _, set := range settings {
		argv = append(argv, "-c", set)
	}
	return o.launch(ctx, "postgres", Command{Argv: argv, Dir: c.dir, User: c.user}, syscall.SIGINT,
		func(ctx context.Context, address string) error {
			return say(ctx, o.Dial, address, postgresHello(), "R") // R: the server asks no password, and so is past its recovery
		})
}

// credential is who the server runs as; nil: this process's user.
func (c *cluster) credential() (*syscall.Credential, error) {
	if c.user == "" {
		return nil, nil //nolint:nilnil // nobody else
	}
	cred, err := sys.Credential(c.user)
	if err != nil {
		return nil, fmt.Errorf("postgres refuses to run as root: %w", err)
	}
	return cred, nil
}

func (c *cluster) makeDir() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	cred, err := c.credential()
	if err != nil || cred == nil {
		return err
	}
	return os.Chown(c.dir, int(cred.Uid), int(cred.Gid))
}

// made reports whether there is a cluster already.
func (c *cluster) made() bool {
	_, err := os.Stat(filepath.Join(c.dir, "PG_VERSION"))
	return err == nil
}

// initialize makes an empty cluster, if there is none.
func (c *cluster) initialize(ctx context.Context, o Options) error {
	if c.made() {
		return nil
	}
	err := c.make(ctx, o, "initdb", "-D", c.dir, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync")
	if err != nil {
		return err
	}
	hba := "host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\nlocal all all trust\n" +
		"host replication all 0.0.0.0/0 trust\nhost replication all ::/0 trust\n"
	return os.WriteFile(filepath.Join(c.dir, "pg_hba.conf"), []byte(hba), 0o600)
}

// copy makes a copy of a running server's cluster that follows it, if there is
// no cluster.
func (c *cluster) copy(ctx context.Context, o Options, primary string) error {
	host, port, err := net.SplitHostPort(primary)
	if err != nil || c.made() {
		return err
	}
	return c.make(ctx, o, "pg_basebackup", "-D", c.dir, "-h", host, "-p", port, "-U", "postgres",
		"--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
}

// configure adds to the cluster's settings: the last one of a name counts.
func (c *cluster) configure(settings string) error {
	f, err := os.OpenFile(filepath.Join(c.dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + settings)
	return errors.Join(err, f.Close())
}

// make runs a program that makes the cluster.
func (c *cluster) make(ctx context.Context, o Options, name string, args ...string) error {
	path, err := probe.Program(name, "postgresql-15", postgresBin+name)
	if err != nil {
		return err
	}
	p, err := o.Start(Command{Argv: append([]string{path}, args...), Dir: c.dir, User: c.user})
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	if _, err := finish(ctx, p, name); err != nil {
		return err
	}
	if !c.made() {
		return errors.New(name + " made no cluster: " + said(p))
	}
	return nil
}

// postgresHello is the protocol's StartupMessage, version 3.0, for the database and user postgres.
func postgresHello() []byte {
	body := "user\x00postgres\x00database\x00postgres\x00\x00"
	msg := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	msg = binary.BigEndian.AppendUint32(msg, 3<<16)
	return append(msg, body...)
}
