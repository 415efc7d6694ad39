package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// The interval between two frames.
const (
	minEvery = 100 * time.Millisecond
	maxEvery = time.Hour
)

// How a full screen is begun, drawn and left.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // another screen than the shell's, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	homeCursor  = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

func newTop(s Streams) *cobra.Command {
	var n nodeFlags
	var every time.Duration
	var once bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show the services and backends as they change",
		Long: `Show what status shows as it changes: problems first, then how many connections
each service and backend has, and what it does in a second. NEW are connections,
IN what comes from clients, OUT what comes from backends.

On a terminal the screen is drawn again and again until q or Ctrl-C, and when the
node ends, it is waited for. Elsewhere (a pipe, a file, TERM=dumb) frames are
printed one below the other; the first comes when there is a difference to show,
and the end of the node is an error.`,
		Example: `  holdfast top
  holdfast top --every 5s
  holdfast top --once | head -20`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < minEvery || every > maxEvery {
				return usage(cmd, fmt.Errorf("--every: %v is not from %v to %v", every, minEvery, maxEvery))
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			t := &top{node: n.client(), every: every, out: s.Out}
			screenOn := terminal(s.Out)
			var err error
			if once || screenOn == nil || oneOf(os.Getenv("TERM"), "", "dumb") {
				err = t.frames(ctx, once)
			} else {
				t.screen.paint = painter(colours(s.Out))
				err = t.live(ctx, screenOn)
			}
			if ctx.Err() != nil && !errors.Is(err, syscall.EPIPE) {
				return nil // Ctrl-C is how it ends
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&every, "every", time.Second, "from one frame to the next")
	cmd.Flags().BoolVar(&once, "once", false, "print one frame, and end")
	_ = cmd.RegisterFlagCompletionFunc("every", cobra.NoFileCompletions)
	n.registerSocket(cmd)
	return cmd
}

// top watches a node.
type top struct {
	node   *admin.Client
	every  time.Duration
	out    io.Writer
	screen screen
}

// frames prints one frame below the other.
func (t *top) frames(ctx context.Context, once bool) error {
	st, err := t.status(ctx)
	if err != nil {
		return err
	}
	t.screen.last = st
	first := true
	for st, err := range t.node.Watch(ctx, t.every) {
		if err != nil {
			return err
		}
		lines := t.screen.frame(sample{st, time.Now()}, 0, 0)
		if first {
			first = false
			continue // it comes at once: there is nothing to compare it with
		}
		text := strings.Join(lines, "\n") + "\n"
		if !once {
			text += "\n"
		}
		if _, err := io.WriteString(t.out, text); err != nil || once {
			return err
		}
	}
	return errGone
}

var errGone = errors.New("the node has ended")

// status asks once, so that a node that does not answer is soon known.
func (t *top) status(ctx context.Context) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	st, err := t.node.Status(ctx)
	return sample{st, time.Now()}, err
}

// live draws on a terminal, until a key or a signal says to stop. A node that
// does not answer the first time is an error; later it is waited for.
func (t *top) live(ctx context.Context, screenOn *os.File) (err error) {
	st, err := t.status(ctx)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	keys, closeKeys, err := readKeys(ctx, stop)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeKeys()) }()
	if _, err := io.WriteString(t.out, enterScreen); err != nil {
		return err
	}
	defer func() {
		_, leaveErr := io.WriteString(t.out, leaveScreen)
		err = errors.Join(err, leaveErr)
	}()

	updates, watched := make(chan update), make(chan struct{})
	go func() {
		defer close(watched)
		t.watch(ctx, updates)
	}()
	defer func() {
		stop()
		<-watched
	}()
	return t.redraw(ctx, screenOn, st, updates, keys)
}

// An update is a status, or why there is none.
type update struct {
	sample
	err error
}

// watch sends what the node says, and asks again where it has gone.
func (t *top) watch(ctx context.Context, updates chan<- update) {
	send := func(u update) bool {
		select {
		case updates <- u:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for ctx.Err() == nil {
		end := errGone
		for st, err := range t.node.Watch(ctx, t.every) {
			if err != nil {
				end = err
				break
			}
			if !send(update{sample: sample{st, time.Now()}}) {
				return
			}
		}
		if !send(update{err: end}) {
			return
		}
		select {
		case <-time.After(max(t.every, time.Second)):
		case <-ctx.Done():
		}
	}
}

// redraw draws whenever there is something new, a key, or another size.
func (t *top) redraw(ctx context.Context, screenOn *os.File, st sample, updates <-chan update, keys <-chan struct{}) error {
	size := time.NewTicker(250 * time.Millisecond)
	defer size.Stop()
	columns, rows, _ := sys.TerminalSize(screenOn)
	var found map[[2]string]rates
	t.screen.last = st
	missing, lost := "", time.Time{}
	for fresh := true; ; {
		if fresh {
			if err := t.draw(st, found, missing, columns, rows); err != nil {
				return err
			}
		}
		fresh = true
		select {
		case <-ctx.Done():
			return nil
		case u := <-updates:
			if u.err != nil {
				if missing == "" {
					lost = time.Now()
				}
				missing = fmt.Sprintf("no answer since %s: %v; trying again", lost.Format(time.TimeOnly), u.err)
				break
			}
			missing = ""
			found = u.rates(t.screen.last)
			st, t.screen.last = u.sample, u.sample
		case <-keys:
		case <-size.C:
			c, r, err := sys.TerminalSize(screenOn)
			if fresh = err == nil && (c != columns || r != rows); fresh {
				columns, rows = c, r
			}
		}
	}
}

// draw replaces what the screen shows, without clearing it first: that flickers.
func (t *top) draw(st sample, found map[[2]string]rates, missing string, columns, rows int) error {
	if columns <= 0 || rows <= 0 {
		columns, rows = 80, 24
	}
	lines := t.screen.draw(st, found, columns, rows-1)
	foot := "q ends"
	if missing != "" {
		foot = t.screen.paint.paint(red, plain(missing))
	}
	for len(lines) < rows-1 {
		lines = append(lines, "")
	}
	lines = append(lines, cut(foot, columns))
	_, err := io.WriteString(t.out, homeCursor+strings.Join(lines, clearLine+"\r\n")+clearLine+clearBelow)
	return err
}

// readKeys reads the keys of the terminal that the program runs on, whatever its
// standard input is. q calls stop; any other key asks for a new frame. Without
// such a terminal there are no keys.
func readKeys(ctx context.Context, stop func()) (keys <-chan struct{}, closeKeys func() error, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, func() error { return nil }, nil
	}
	restore, err := sys.ReadKeys(tty)
	if err != nil {
		return nil, nil, errors.Join(err, tty.Close())
	}
	pressed, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1)
		for {
			if _, err := tty.Read(b); err != nil {
				return
			}
			if b[0] == 'q' || b[0] == 'Q' {
				stop()
				return
			}
			select {
			case pressed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return pressed, func() error {
		err := restore()
		// Where a terminal has no deadlines, the read ends with the program.
		if tty.SetReadDeadline(time.Now()) == nil {
			<-done
		}
		return errors.Join(err, tty.Close())
	}, nil
}
