//go:build linux

package lab

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

func TestSupported(t *testing.T) {
	all := oneArm(t, Size{FarClients: 1})
	all.Host("router").Role = Middlebox
	all.Link("far1", 0).Taps = true
	if os.Geteuid() != 0 {
		if err := Supported(all); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "root") {
			t.Errorf("without root: %v", err)
		}
		return
	}
	for name, top := range map[string]Topology{"nothing special": {}, "everything": all} {
		supported := Supported(top)
		if l, err := Start(t.Context(), top, Options{}); (err == nil) != (supported == nil) {
			t.Errorf("%s: %v, but Start says %v", name, supported, err)
		} else if err == nil {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Setenv("PATH", t.TempDir())
	if err := Supported(all); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "nft") {
		t.Errorf("without nft: %v", err)
	}
	if err := Supported(Topology{}); err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Errorf("without nft, which is not needed: %v", err)
	}
}
