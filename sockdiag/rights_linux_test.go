package sockdiag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// nobodyEnv makes the test binary a program without rights.
const nobodyEnv = "HOLDFAST_TEST_SOCKDIAG_NOBODY"

func TestMain(m *testing.M) {
	if os.Getenv(nobodyEnv) != "" {
		if err := nobody(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// nobody says what can be done without rights.
func nobody() error {
	c, err := Open()
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Collect(context.Background(), Filter{}, ListOptions{Info: true})
	if err != nil {
		return err
	}
	for _, s := range all {
		fmt.Println(s, "mark", s.Mark, "info", s.Info != nil)
		fmt.Println("destroy:", short(c.Destroy(s)))
	}
	_, err = c.Collect(context.Background(), Filter{Mark: &Mark{Value: 1, Mask: 1}}, ListOptions{})
	fmt.Println("by mark:", short(err))
	fmt.Println("can destroy:", short(c.CanDestroy()))
	w, err := OpenWatch(WatchOptions{})
	if err != nil {
		return err
	}
	defer w.Close()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_ = l.Close()
	for s, err := range w.Destroyed(context.Background()) {
		if err == nil && s.Local.Port() == 0 {
			continue // with which the net package has tried what there is
		}
		fmt.Println("watch:", s.Local.Addr(), s.State, short(err))
		break
	}
	return nil
}

func short(err error) string {
	switch {
	case errors.Is(err, ErrNotPermitted) && errors.Is(err, syscall.EPERM):
		return "not permitted"
	case err == nil:
		return "nil"
	}
	return err.Error()
}

func TestWithoutRights(t *testing.T) {
	s := newSite(t)
	l := s.listen("tcp4", "127.0.0.1:1001")
	setOption(t, l, syscall.SOL_SOCKET, syscall.SO_MARK, 3)
	if all := s.list(Filter{}, ListOptions{}); len(all) != 1 || all[0].Mark != 3 {
		t.Fatalf("%+v", all)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), nobodyEnv+"=1")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	s.do(cmd.Start)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	want := `127.0.0.1:1001 listen mark 0 info true
destroy: not permitted
by mark: not permitted
can destroy: not permitted
watch: 127.0.0.1 closed nil
`
	if out.String() != want {
		t.Errorf("without rights:\n%s\nwant\n%s", strings.TrimSpace(out.String()), want)
	}
}
