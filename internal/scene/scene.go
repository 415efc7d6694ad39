//go:build linux

package scene

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// A Scene is one story. The functions that make them are listed in [All].
type Scene struct {
	Name  string
	Title string // one line: what happens, and what must come of it
	Story string // a paragraph for who wants to know more

	// Variants are the policies and faults under which the story is told, at
	// least one; each is run for itself and has a verdict of its own.
	Variants []Variant

	// Demo marks a scene that shows the main job.
	Demo bool

	// Patient marks a scene that measures nothing finer than a second, so that
	// it can be played beside others.
	Patient bool

	// Run plays one variant. An error says that it could not be played; what it
	// found out, good or bad, is in the verdict.
	Run func(ctx context.Context, e *Env) (*Verdict, error)
}

// A Variant is one way to tell a scene. Either may be empty.
type Variant struct {
	Policy string `json:"policy,omitempty"`
	Fault  string `json:"fault,omitempty"`

	Title string `json:"-"` // what is special about it, in half a sentence
	Demo  bool   `json:"-"` // it belongs to the short demonstration
	Long  bool   `json:"-"` // the same as another one, for longer: for campaigns, and not for go test
}

func (v Variant) String() string {
	return strings.Trim(v.Policy+", "+v.Fault, ", ")
}

// All lists the scenes of the relay in the order in which a reader should meet them.
func All() []Scene {
	return []Scene{
		BackendDies(),
		HalfOpen(),
		Endings(),
		PortInUse(),
	}
}

// An Env is what a scene is played with. Fields are read only.
type Env struct {
	Family  lab.Family
	Variant Variant

	// Seed decides everything that is random, such as the moment of the fault.
	Seed uint64

	// Program is how to run holdfast as a process of its own.
	Program *Program

	// Without asks to measure the same fault without Holdfast too, where that
	// takes a few seconds and what it needs is installed.
	Without bool

	// Short asks for what a short demonstration needs and no more.
	Short bool

	// Relaxed says that times are not judged: a scene may then use longer
	// intervals, so that a busy machine cannot make a healthy backend look dead.
	Relaxed bool

	// OnProgress is called with what is happening now, one sentence without a
	// full stop; nil: nobody listens.
	OnProgress func(elapsed time.Duration, what string)

	began time.Time
}

// Say tells who watches what is happening now.
func (e *Env) Say(format string, args ...any) {
	if e.OnProgress != nil {
		e.OnProgress(time.Since(e.began), fmt.Sprintf(format, args...))
	}
}

// Rand gives random numbers that the seed decides. Each call begins anew: keep
// the result.
func (e *Env) Rand() *rand.Rand { return rand.New(rand.NewPCG(e.Seed, 0x686f6c64)) }

// Verdict begins the verdict of this run.
func (e *Env) Verdict() *Verdict { return &Verdict{} }

// Start builds the topology. The caller closes the lab.
func (e *Env) Start(ctx context.Context, t lab.Topology) (*lab.Lab, error) {
	return lab.Start(ctx, t, lab.Options{Seed: e.Seed})
}

// Play plays one variant of a scene and completes the verdict with what was
// played. It takes at most two minutes.
func Play(ctx context.Context, s Scene, e Env) (*Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	e.began = time.Now()
	watch := startWatch()
	v, err := s.Run(ctx, &e)
	disturbed := watch.stop()
	if err != nil {
		return nil, fmt.Errorf("scene %s (%s): %w", s.Name, strings.TrimPrefix(e.Variant.String()+", "+e.Family.String(), ", "), err)
	}
	v.Scene, v.Variant, v.Family, v.Seed = s.Name, e.Variant, e.Family.String(), e.Seed
	v.Took, v.Disturbed = time.Since(e.began), disturbed
	return v, nil
}

// disturbedBy is how long the machine may keep the judge waiting before times
// that were exceeded say more about the machine than about Holdfast: it is the
// slack that the tightest bound of a scene has.
const disturbedBy = 10 * time.Millisecond

// PlayUndisturbed is Play, and plays again, up to twice, where nothing but times
// was wrong and the machine kept the judge itself waiting. again is called
// before each repetition.
func PlayUndisturbed(ctx context.Context, s Scene, e Env, again func(*Verdict)) (*Verdict, error) {
	for i := 0; ; i++ {
		v, err := Play(ctx, s, e)
		if err != nil || !v.machineAtFault() || i == 2 {
			return v, err
		}
		again(v)
	}
}

// A watch measures how late the machine lets this process run.
type watch struct {
	end  chan struct{}
	late chan time.Duration
}

func startWatch() *watch {
	w := &watch{make(chan struct{}), make(chan time.Duration)}
	go w.run()
	return w
}

func (w *watch) run() {
	const period = 5 * time.Millisecond
	var worst time.Duration
	timer := time.NewTimer(period)
	defer timer.Stop()
	for due := time.Now().Add(period); ; {
		select {
		case <-timer.C:
			now := time.Now()
			worst = max(worst, now.Sub(due))
			due = now.Add(period)
			timer.Reset(period)
		case <-w.end:
			w.late <- worst
			return
		}
	}
}

func (w *watch) stop() time.Duration {
	close(w.end)
	return <-w.late
}

// A Program is the holdfast executable, to be run inside a lab. Tests give
// their own, which becomes holdfast by a word in its environment.
type Program struct {
	Path string
	Env  []string // added to the environment, as "NAME=value"

	copying sync.Once
	copied  string
	err     error
}

// ThisProgram is the program that is running.
func ThisProgram(env ...string) (*Program, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("scene: which program this is: %w", err)
	}
	return &Program{Path: path, Env: env}, nil
}

// Command runs it with the rights of this process.
func (p *Program) Command(args ...string) lab.Command {
	return lab.Command{Argv: append([]string{p.Path}, args...), Env: p.Env}
}

// nobody is a user without any rights, which every system has.
const nobody = "nobody"

// Unprivileged runs it as the user nobody. That user may not enter the
// directory that the program is in, so it runs a copy, which Close removes.
func (p *Program) Unprivileged(args ...string) (lab.Command, error) {
	if _, err := user.Lookup(nobody); err != nil {
		return lab.Command{}, fmt.Errorf("scene: %w", err)
	}
	p.copying.Do(func() { p.copied, p.err = copyProgram(p.Path) })
	if p.err != nil {
		return lab.Command{}, fmt.Errorf("scene: copy %s for user %s: %w", p.Path, nobody, p.err)
	}
	return lab.Command{Argv: append([]string{p.copied}, args...), Env: p.Env, User: nobody, Dir: "/"}, nil
}

// Close removes the copy that Unprivileged made.
func (p *Program) Close() error {
	p.copying.Do(func() { p.err = os.ErrClosed })
	if p.copied == "" {
		return nil
	}
	return os.RemoveAll(filepath.Dir(p.copied))
}

func copyProgram(path string) (_ string, err error) {
	dir, err := os.MkdirTemp("", "holdfast-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	from, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer from.Close()
	name := filepath.Join(dir, "holdfast")
	to, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	return name, errors.Join(err, to.Chmod(0o755), to.Close())
}
