package gate

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/internal/usertest"
)

func TestProbe(t *testing.T) {
	owner, _, _ := hosts(t, "IPv4")
	in(t, owner.ns, func() error {
		if r := Probe(); r.Answer != probe.Yes || r.Remedy != "" || r.Evidence == "" || r.For == "" {
			t.Errorf("as root: %+v", r)
		}
		return nil
	})
	cmd := exec.Command(usertest.Program(t, "probe"))
	cmd.Env = append(os.Environ(), envProbe+"=1")
	usertest.Nobody(cmd)
	out, err := cmd.CombinedOutput()
	if answer := strings.Split(string(out), "|"); err != nil || len(answer) != 3 || answer[0] != "no" || !strings.Contains(answer[2], "CAP_BPF") {
		t.Errorf("as nobody: %q, %v", out, err)
	}
	// With everything but CAP_SYS_ADMIN: setpriv is of util-linux, as mount is.
	cmd = exec.Command("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", os.Args[0])
	cmd.Env = append(os.Environ(), envProbe+"=1")
	out, err = cmd.CombinedOutput()
	if answer := strings.Split(string(out), "|"); err != nil || len(answer) != 3 || answer[0] != "no" || !strings.Contains(answer[2], "CAP_SYS_ADMIN") {
		t.Errorf("without CAP_SYS_ADMIN: %q, %v", out, err)
	}
	for _, c := range []struct {
		step   string
		err    error
		answer probe.Answer
		remedy string
	}{
		{"load", syscall.ENOSYS, probe.No, "CONFIG_BPF_SYSCALL"},
		{"attach", fmt.Errorf("list programs: %w", syscall.EINVAL), probe.No, "Linux 6.6"},
		{"find", fmt.Errorf("by its number: %w", syscall.EPERM), probe.No, "CAP_SYS_ADMIN"},
		{"load", syscall.ENOMEM, probe.CouldNotTell, "short of something"},
	} {
		if r := judge(c.step, c.err); r.Answer != c.answer || !strings.Contains(r.Remedy, c.remedy) {
			t.Errorf("%s: %v: %+v", c.step, c.err, r)
		}
	}
}
