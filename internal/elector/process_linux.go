package elector

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/vip"
)

const (
	// priority is the elector's under SCHED_RR: below that of threads that serve
	// interrupts, above every ordinary process.
	priority = 40

	goProcessors = 8 // see settle

	// lockWait is how long a new elector waits for the lock of one that was
	// killed and is not gone yet.
	lockWait = 2 * time.Second

	// processName is what ps and top show.
	processName = "holdfast-vip"
)

// needed is what the elector may need as long as it runs, and the program that
// replaces it. CAP_SYS_ADMIN is for finding the gate's programs that another
// process has left on an interface.
var needed = sys.CapabilitySet(sys.CapNetAdmin, sys.CapNetRaw, sys.CapBPF, sys.CapPerfmon, sys.CapSysAdmin, sys.CapIPCLock, sys.CapSysNice)

// arguments are what an elector is started with.
type arguments struct {
	runtime      string
	ready        int // descriptor that is told "ready", or what went wrong
	lock, listen int // descriptors of the program before this one
	state        int // likewise
}

// none stands for a descriptor that is not there.
const none = -1

func (a arguments) list() []string {
	list := []string{"--runtime", a.runtime}
	for _, d := range []struct {
		name string
		fd   int
	}{{"--ready", a.ready}, {"--lock", a.lock}, {"--listen", a.listen}, {"--state", a.state}} {
		if d.fd != none {
			list = append(list, d.name, strconv.Itoa(d.fd))
		}
	}
	return list
}

func parseArguments(args []string) (a arguments, err error) {
	f := flag.NewFlagSet("elector", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&a.runtime, "runtime", "", "")
	f.IntVar(&a.ready, "ready", none, "")
	f.IntVar(&a.lock, "lock", none, "")
	f.IntVar(&a.listen, "listen", none, "")
	f.IntVar(&a.state, "state", none, "")
	if err := f.Parse(args); err != nil {
		return a, err
	}
	if a.runtime == "" || f.NArg() > 0 {
		return a, errors.New("the daemon starts it, with --runtime and the directory of its socket: run `holdfast run` instead")
	}
	return a, nil
}

// handover is what one program of an elector leaves to the next, which passes
// over what it does not know.
type handover struct {
	Settings Settings   `json:"settings"`
	Owner    []byte     `json:"owner"` // what vip.Owner.Hand has returned
	Started  time.Time  `json:"started"`
	Pending  []*message `json:"pending,omitempty"` // changes that no daemon has been told
}

// Main runs an elector until it is told to stop, or has nothing left to do. args
// are what a [Client] has started it with; program are the arguments in front of
// them, for the program that replaces this one. What it has to say while no daemon
// is attached goes to stderr.
func Main(program, args []string, version string, stderr io.Writer) error {
	return start(program, args, version, stderr, orphanTimeout, func(o vip.Options) (owner, error) { return vip.New(o) })
}

// start is Main, for any owner.
func start(program, args []string, version string, stderr io.Writer, patience time.Duration, own func(vip.Options) (owner, error)) (err error) {
	a, err := parseArguments(args)
	if err != nil {
		return err
	}
	// Whoever started the daemon may have given it more than either knows.
	if err := sys.CloseInherited(a.ready, a.lock, a.listen, a.state); err != nil {
		return fmt.Errorf("elector: close what it was given besides: %w", err)
	}
	ready, err := openReady(a.ready)
	if err != nil {
		return err
	}
	defer func() { ready.say(err) }()
	// Who reads stderr may end first.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGHUP)
	// Cosmetic: the daemon starts it as /proc/self/exe.
	_ = os.WriteFile("/proc/self/comm", []byte(processName), 0)
	lacks := settle()
	lock, err := takeLock(a)
	if err != nil {
		return err
	}
	defer lock.Close()
	before, err := readHandover(a.state)
	if err != nil {
		return err
	}
	listener, err := listen(a)
	if err != nil {
		return err
	}
	defer listener.Close()
	return run(process{program, a, version, stderr, patience, own, lock, listener, lacks}, before, ready)
}

// A process is what stays the same while an elector runs.
type process struct {
	program  []string
	args     arguments
	version  string
	stderr   io.Writer
	patience time.Duration // without a daemon
	own      func(vip.Options) (owner, error)
	lock     *os.File
	listener *net.UnixListener
	lacks    standing
}

// run runs the owner and the socket, and executes the program that is to replace
// this one. Where that fails, it goes on itself.
func run(p process, before handover, ready *readiness) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	out, write := newLines(p.stderr)
	logCtx, endLog := context.WithCancel(context.Background())
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		write(logCtx)
	}()
	defer func() {
		endLog()
		<-wrote
	}()
	for {
		s := newServer(p.listener, p.isOurs, p.welcome(before.Started), before.Settings, before.Pending, out)
		o, err := p.own(vip.Options{
			Groups: before.Settings.groups(), Resume: before.Owner, Steps: s.ownerSteps(),
			OnChange: s.changed, OnBeat: s.beat, Logger: s.log,
		})
		if err != nil {
			return err
		}
		for _, l := range p.lacks.list {
			s.log.Warn("the elector runs without what it should have", "lacks", l)
		}
		ready.say(nil)
		err = s.serve(ctx, o, p.patience)
		if !errors.Is(err, errReplaced) {
			s.log.Info("the elector ends", "why", reason(ctx, err))
			err = errors.Join(ended(err), o.Close())
			return err
		}
		before = handover{Settings: s.settings, Owner: s.handed, Started: before.Started, Pending: s.pending}
		err = p.become(s.program, before)
		s.log.Error("the elector could not become the new program, and stays the one that it is", "err", err)
		if err := errors.Join(o.Close(), s.program.Close()); err != nil { // the addresses are the next owner's
			s.log.Warn("the elector did not free all that it had", "err", err)
		}
	}
}

// isOurs reports whether the runtime directory is still this elector's: where
// somebody has removed it, another one may run there.
func (p process) isOurs() bool {
	own, err := p.lock.Stat()
	if err != nil {
		return true // it cannot be told
	}
	now, err := os.Stat(lockPath(p.args.runtime))
	return err == nil && os.SameFile(own, now) || err != nil && !errors.Is(err, os.ErrNotExist)
}

// reason is why an elector ends, for its log.
func reason(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "a signal"
	}
	if err != nil {
		return err.Error()
	}
	return "nothing is left to do"
}

// ended is nil for what is a good end.
func ended(err error) error {
	for _, good := range []error{errStopped, errOrphaned, errLost, context.Canceled} {
		if errors.Is(err, good) {
			return nil
		}
	}
	return err
}

func (p process) welcome(started time.Time) welcome {
	w := welcome{
		Protocol: protocol, Build: build(), Version: p.version, PID: os.Getpid(), Started: started,
		RealTime: p.lacks.realTime, Locked: p.lacks.locked, Lacks: p.lacks.list,
	}
	if w.Started.IsZero() {
		w.Started = time.Now()
	}
	return w
}

// become replaces this program; it returns only if that failed, and then nothing
// has changed.
func (p process) become(program *os.File, h handover) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	state, err := sys.MemoryFile("holdfast elector")
	if err != nil {
		return err
	}
	defer state.Close()
	if _, err := state.WriteAt(text, 0); err != nil {
		return err
	}
	listener, err := p.listener.File() // a copy, which blocks: nobody else uses it
	if err != nil {
		return err
	}
	defer listener.Close()
	next := p.args
	next.ready = none
	for _, d := range []struct {
		f  *os.File
		fd *int
	}{{p.lock, &next.lock}, {listener, &next.listen}, {state, &next.state}} {
		if *d.fd, err = sys.Inherited(d.f); err != nil {
			return err
		}
	}
	return sys.ExecFile(program, append(append([]string{}, p.program...), next.list()...), os.Environ())
}

// readHandover reads what the program before has left; nothing for none.
func readHandover(fd int) (h handover, err error) {
	if fd == none {
		h.Started = time.Now()
		return h, nil
	}
	f, err := sys.TakeInherited(fd, "what the program before has left")
	if err != nil {
		return h, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 8*maxFrame))
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err != nil {
		return h, fmt.Errorf("elector: what the program before has left: %w", err)
	}
	return h, nil
}

// standing is how a process stands with the kernel.
type standing struct {
	realTime, locked bool
	list             []string // what it lacks
}

// settle makes this process one that runs when nothing else does: real-time
// priority, memory that stays, little work for the garbage collector, and out of
// reach of who frees memory. What cannot be had is told, and does without.
func settle() (s standing) {
	// More than its threads have to do: the loop never waits for a place in Go's own
	// scheduler (at 10 ms adverts it was late by up to 13 ms with 2, and 2 ms with 8).
	runtime.GOMAXPROCS(goProcessors)
	debug.SetGCPercent(400) // of a heap of a few hundred kB: a collection every 16 MiB
	lacks := func(what string, err error) bool {
		if err != nil {
			s.list = append(s.list, fmt.Sprintf("%s: %v", what, err))
		}
		return err == nil
	}
	if s.realTime = lacks("real-time priority, so adverts may be late under load", sys.SetRealtimeAll(priority)); !s.realTime {
		// Not as good, and where not even this may be had, there is no more to say.
		_ = sys.SetNice(-20)
	}
	s.locked = lacks("memory that stays in RAM, so adverts may wait for a disk", sys.LockMemory())
	spare()
	held, ambient, err := sys.HeldCapabilities()
	if err != nil {
		return s
	}
	if held&sys.CapabilitySet(sys.CapNetAdmin) == 0 {
		lacks("right to set addresses, so this node can own none", errors.New("it needs CAP_NET_ADMIN"))
	}
	if held&^(needed|ambient) != 0 {
		// A program built with cgo keeps what it holds.
		if err := sys.KeepCapabilities(held & (needed | ambient)); !errors.Is(err, syscall.ENOTSUP) {
			lacks("to give up capabilities that it does not need", err)
		}
	}
	return s
}

// spare keeps the kernel from killing this process for its memory. Where that may
// not be had (CAP_SYS_RESOURCE), what holds for the daemon holds for it, too: the
// unit has OOMScoreAdjust.
func spare() { _ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) }

// takeLock takes the lock of the runtime directory: one elector runs for it.
func takeLock(a arguments) (*os.File, error) {
	if a.lock != none {
		return sys.TakeInherited(a.lock, lockPath(a.runtime))
	}
	f, err := os.OpenFile(lockPath(a.runtime), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("elector: its lock: %w", err)
	}
	for began := time.Now(); ; time.Sleep(lockWait / 200) {
		locked, err := sys.TryLock(f)
		if err == nil && !locked && time.Since(began) < lockWait {
			continue
		}
		if err == nil && !locked {
			err = fmt.Errorf("elector: %s is held by another elector%s: end that one first", f.Name(), holder(f))
		}
		if err == nil {
			if err = f.Truncate(0); err == nil {
				_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
			}
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
}

// holder is who wrote its number into the lock.
func holder(f *os.File) string {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if pid, bad := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && bad == nil {
		return fmt.Sprintf(" (pid %d)", pid)
	}
	return ""
}

// listen makes the socket, or takes that of the program before. Its file is made
// under another name and moved, so that nobody finds it with the wrong mode.
func listen(a arguments) (*net.UnixListener, error) {
	if a.listen != none {
		f, err := sys.TakeInherited(a.listen, socketPath(a.runtime))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("elector: the socket of the program before: %w", err)
		}
		u, ok := l.(*net.UnixListener)
		if !ok {
			return nil, errors.Join(errors.New("elector: the socket of the program before is none of unix"), l.Close())
		}
		return u, nil
	}
	path := socketPath(a.runtime)
	next := filepath.Join(a.runtime, "elector.new")
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("elector: its socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: next, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("elector: its socket: %w", err)
	}
	// The file stays when this process ends: the next program, or the next
	// elector, puts its own in the place.
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(next, 0o600); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("elector: its socket: %w", err), l.Close(), os.Remove(next))
	}
	return l, nil
}

// A readiness tells who started this process, once.
type readiness struct{ f *os.File }

func openReady(fd int) (*readiness, error) {
	if fd == none {
		return &readiness{}, nil
	}
	f, err := sys.TakeInherited(fd, "who waits for the elector")
	return &readiness{f}, err
}

// ready is what a good start says.
const ready = "ready\n"

func (r *readiness) say(err error) {
	if r.f == nil {
		return
	}
	text := ready
	if err != nil {
		text = err.Error()
	}
	_, _ = r.f.WriteString(text) // who waited may be gone
	_ = r.f.Close()
	r.f = nil
}

// build says which program this is: another one, or the same put in place anew,
// is another build.
func build() string {
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "unknown"
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "unknown"
	}
	return fmt.Sprintf("%d-%d-%d-%d", st.Dev, st.Ino, info.Size(), info.ModTime().UnixNano())
}
