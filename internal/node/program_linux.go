package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// said is how much of what a program prints is kept: its end.
const said = 2 << 10

// A lastWords keeps the end of what is written to it. os/exec writes from one
// goroutine, and Wait ends it.
type lastWords struct{ text []byte }

func (l *lastWords) Write(b []byte) (int, error) {
	l.text = append(l.text, b[max(0, len(b)-said):]...)
	l.text = l.text[max(0, len(l.text)-said):]
	return len(b), nil
}

// runProgram runs a program of the file in a process group of its own, which is
// killed as a whole at the end of ctx, and after the program has ended. It returns
// what the program has printed last.
func runProgram(ctx context.Context, argv, env []string) (output string, err error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return "", err
	}
	var words lastWords
	cmd := exec.Command(path, argv[1:]...) //nolint:noctx // the whole group is killed, not the program alone
	cmd.Args[0] = argv[0]
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	cmd.Stdout, cmd.Stderr = &words, &words
	// Who left the process group can still hold the output open.
	cmd.WaitDelay = 100 * time.Millisecond
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start: %w", err)
	}
	// The group is killed before its leader is reaped: until then the number
	// cannot be another group's.
	killGroup := func() { _ = sys.SignalGroup(cmd.Process.Pid, syscall.SIGKILL) }
	stop := context.AfterFunc(ctx, killGroup)
	if sys.AwaitExit(cmd.Process.Pid) == nil {
		killGroup()
	}
	stopped := stop()
	err = cmd.Wait()
	output = strings.ToValidUTF8(strings.TrimSpace(string(words.text)), "?")
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil
	case err != nil && !stopped && ctx.Err() != nil:
		err = ctx.Err()
	}
	return output, err
}
