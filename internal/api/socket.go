//go:build linux

package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// A Listener listens on the node's socket.
type Listener struct {
	*net.UnixListener
	path string
	file fs.FileInfo // the socket's, to know it again

	once sync.Once
	err  error
}

// backlog is how many may wait to be accepted; beyond, a connect fails at once.
const backlog = 128

// Listen listens on the unix socket path, which it gives the mode (permission
// bits) and, unless that is "", the group, by name or number. A directory that
// is missing is made, for everybody to look into. What a process that is gone
// has left there is removed; one that lives is named in the error.
//
// Nobody can connect before the mode and the group are what they should be.
// Close removes the socket, unless another one has taken its place.
func Listen(path string, mode fs.FileMode, group string) (*Listener, error) {
	if mode&^fs.ModePerm != 0 {
		return nil, fmt.Errorf("admin.mode: %04o is more than permission bits", uint32(mode))
	}
	gid := -1
	if group != "" {
		n, err := lookupGroup(group)
		if err != nil {
			return nil, err
		}
		gid = int(n)
	}
	dir := filepath.Dir(path)
	if err := makeDirectory(dir); err != nil {
		return nil, explainListen(path, err)
	}
	defer lockDirectory(dir)()
	if err := probe.RemoveStaleSocket(path); err != nil {
		return nil, explainListen(path, err)
	}
	l := &Listener{path: path}
	var err error
	if l.UnixListener, err = bind(path, func() error { return l.protect(mode, gid, group) }); err != nil {
		return nil, explainListen(path, err)
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// bind listens on a path. What prepare does comes between the making of the
// socket and the first that can connect.
func bind(path string, prepare func() error) (*net.UnixListener, error) {
	fd, errno := sys.Socket(netip.Addr{})
	if errno != 0 {
		return nil, errno
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // the listener has its own
	if err := sys.Bind(fd, netip.AddrPort{}, path); err != nil {
		return nil, err
	}
	err := prepare()
	if err == nil {
		err = sys.Listen(fd, backlog)
	}
	var l net.Listener
	if err == nil {
		l, err = net.FileListener(f)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return l.(*net.UnixListener), nil
}

// protect gives the socket its group and its mode, in this order: a change of
// the group may take bits from the mode.
func (l *Listener) protect(mode fs.FileMode, gid int, group string) error {
	if gid >= 0 {
		if err := os.Lchown(l.path, -1, gid); err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return &probe.ListenError{
					Address: "unix:" + l.path, Why: fmt.Sprintf("uid %d may not give the socket to group %s", os.Geteuid(), group),
					Do: "run as root, make that user a member of the group, or leave admin.group out", Err: err,
				}
			}
			return err
		}
	}
	if err := os.Chmod(l.path, mode); err != nil {
		return err
	}
	var err error
	l.file, err = os.Lstat(l.path)
	return err
}

// SetAccess gives the socket another mode and another group, by name or number;
// "" is the node's own. It fails, and changes nothing, if there is no such group
// or the socket may not be given to it.
func (l *Listener) SetAccess(mode fs.FileMode, group string) error {
	if mode&^fs.ModePerm != 0 {
		return fmt.Errorf("admin.mode: %04o is more than permission bits", uint32(mode))
	}
	gid := os.Getegid()
	if group != "" {
		n, err := lookupGroup(group)
		if err != nil {
			return err
		}
		gid = int(n)
	}
	if now, err := os.Lstat(l.path); err != nil || !os.SameFile(now, l.file) {
		return fmt.Errorf("admin.socket: %s is no longer the node's: restart the node", l.path)
	}
	if err := l.protect(mode, gid, group); err != nil {
		return explainListen(l.path, err)
	}
	return nil
}

// Close removes the socket and ends it. Calling it again does nothing.
func (l *Listener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
			l.err = os.Remove(l.path)
		}
		l.err = errors.Join(l.err, l.UnixListener.Close())
	})
	return l.err
}

// errOpenToAll is a directory where anybody may put another socket in the place
// of the node's.
var errOpenToAll = errors.New("everybody may remove and make files there")

func makeDirectory(dir string) error {
	const mode = 0o755
	fi, err := os.Stat(dir)
	switch {
	case err == nil && fi.Mode()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0:
		return errOpenToAll
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	return os.Chmod(dir, mode) // whatever the umask
}

// lockDirectory keeps two nodes that start at once from taking each other's
// socket, which is bound and does not listen yet, for that of a process that is
// gone. It waits for a second at most: everybody who may look into the directory
// can lock it.
func lockDirectory(dir string) (unlock func()) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {} // binding will say more
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 100 {
		if locked, err := sys.TryLock(f); err != nil || locked {
			break
		}
		<-tick.C
	}
	return func() { f.Close() }
}

// explainListen says what to do where the socket cannot be made.
func explainListen(path string, err error) error {
	const elsewhere = "set admin.socket to another path"
	l, ok := errors.AsType[*probe.ListenError](err)
	if !ok {
		l = probe.ExplainListenUnix(path, err)
	}
	dir := filepath.Dir(path)
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && isSocket(path):
		l.Do = "stop it, or " + elsewhere + " (a second node needs directories.runtime of its own too)"
	case ok && !errors.Is(err, syscall.EADDRINUSE):
	case errors.Is(err, errOpenToAll):
		l.Why, l.Do = fmt.Sprintf("%s in %s", err, dir), elsewhere+", or take the right to write there from others"
	case errors.Is(err, fs.ErrPermission):
		l.Why = fmt.Sprintf("permission denied: uid %d may not make files in %s", os.Geteuid(), dir)
		l.Do = fmt.Sprintf("run as root, or set admin.socket to a path that uid %d may write", os.Geteuid())
		if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
			l.Do += ", such as " + filepath.Join(run, "holdfast.sock")
		}
	default:
		l.Do = elsewhere
	}
	return l
}

func isSocket(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode().Type() == fs.ModeSocket
}
