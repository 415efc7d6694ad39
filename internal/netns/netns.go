//go:build linux

package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// ErrClosed is returned by the methods of a closed namespace.
var ErrClosed = errors.New("network namespace is closed")

// NS is a network namespace that has no name and lives as long as something
// refers to it: this object, a socket made in it, or a process. All methods
// may be called at the same time.
type NS struct {
	inode uint64

	jobs chan func() // what the namespace's own thread is to do
	gone chan struct{}

	mu     sync.RWMutex // held shortly: file must not be closed while a thread enters
	file   *os.File
	closed bool
}

// New makes a namespace. It needs CAP_SYS_ADMIN.
func New() (*NS, error) {
	n := &NS{jobs: make(chan func()), gone: make(chan struct{})}
	ready := make(chan error, 1)
	go n.home(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	info, err := n.file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stat network namespace: %w", err), n.Close())
	}
	n.inode = info.Sys().(*syscall.Stat_t).Ino
	return n, nil
}

// home is the namespace's own thread: processes are started from it, because
// a parent-death signal is sent when the thread dies that made the process,
// not when the process of that thread does.
func (n *NS) home(ready chan<- error) {
	defer close(n.gone)
	onSpareThread(func() {
		err := sys.UnshareNetNS()
		if err == nil {
			n.file, err = sys.ThreadNetNS()
		}
		ready <- err
		if err != nil {
			return
		}
		for job := range n.jobs {
			job()
		}
	})
}

// onSpareThread runs f on a locked thread that ends with f. It is never the
// main thread: /proc/self is the main thread's, and it cannot end.
func onSpareThread(f func()) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if !sys.OnMainThread() {
			defer close(done)
			f()
			return
		}
		// The main thread is held here, so that the next one is another.
		defer runtime.UnlockOSThread()
		next := make(chan struct{})
		go func() {
			defer close(next)
			runtime.LockOSThread()
			f()
		}()
		<-next
		close(done)
	}()
	<-done
}

// Do runs f on a thread inside the namespace and returns what f returns.
// Sockets that f makes stay in the namespace; goroutines that f starts do not
// run in it. f may block; several may run at the same time.
func (n *NS) Do(f func() error) error {
	return do(func(*os.File) (bool, error) { return true, n.enter() }, f)
}

// Within is [NS.Do] for a namespace that a descriptor refers to. Where it is that
// of this process, no capability is needed. The caller keeps ns open meanwhile.
func Within(ns *os.File, f func() error) error {
	return do(func(home *os.File) (bool, error) {
		if same(home, ns) {
			return false, nil // entering would need CAP_SYS_ADMIN
		}
		return true, sys.EnterNetNS(int(ns.Fd()))
	}, f)
}

// same says whether two files are the same namespace.
func same(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}

// do runs f on a thread that enter has moved, and brings the thread back if it
// was moved. enter gets the namespace that the thread is in.
func do(enter func(home *os.File) (moved bool, err error), f func() error) error {
	err := errors.New("the function ended its goroutine instead of returning")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if sys.OnMainThread() {
			// The main thread must stay where it is: hand the work on while
			// this goroutine keeps it from being chosen again.
			defer runtime.UnlockOSThread()
			err = do(enter, f)
			return
		}
		home, herr := sys.ThreadNetNS()
		if herr != nil {
			runtime.UnlockOSThread()
			err = herr
			return
		}
		defer home.Close()
		moved, err2 := enter(home)
		if err2 != nil {
			runtime.UnlockOSThread()
			err = err2
			return
		}
		// Also when f panics or ends the goroutine. A thread that cannot be
		// brought back stays locked and dies with this goroutine.
		defer func() {
			if !moved || sys.EnterNetNS(int(home.Fd())) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = f()
	}()
	<-done
	return err
}

func (n *NS) enter() error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.closed {
		return ErrClosed
	}
	return sys.EnterNetNS(int(n.file.Fd()))
}

// DoAtHome runs f on the namespace's own thread, which lives until Close. f
// must be short: everything else that is to run there waits.
func (n *NS) DoAtHome(f func() error) error {
	res := make(chan error, 1)
	n.mu.RLock()
	if n.closed {
		n.mu.RUnlock()
		return ErrClosed
	}
	n.jobs <- func() { res <- f() }
	n.mu.RUnlock()
	return <-res
}

// Inode is the number by which /proc/PID/ns/net names the namespace.
func (n *NS) Inode() uint64 { return n.inode }

// WithFD calls f with a descriptor of the namespace, valid during the call.
func (n *NS) WithFD(f func(fd int) error) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.closed {
		return ErrClosed
	}
	return f(int(n.file.Fd()))
}

// Close lets go of the namespace; the kernel takes it apart when nothing else
// refers to it. Processes that were started by DoAtHome with a parent-death
// signal get it now.
func (n *NS) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	close(n.jobs)
	err := n.file.Close()
	n.mu.Unlock()
	<-n.gone
	return err
}
