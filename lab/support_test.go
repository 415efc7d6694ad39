//go:build linux

package lab

import (
	"os"
	"strings"
	"testing"
)

func TestSupported(t *testing.T) {
	all := oneArm(t, Size{FarClients: 1})
	all.Host("router").Role = Middlebox
	all.Link("far1", 0).Taps = true
	if os.Geteuid() != 0 {
		if s := Supported(all); s.Answer != No || !strings.Contains(s.Why, "root") {
			t.Errorf("without root: %+v", s)
		}
		return
	}
	for name, top := range map[string]Topology{"nothing special": {}, "everything": all} {
		s := Supported(top)
		if s.Answer != Yes && s.Why == "" {
			t.Errorf("%s: %v without a reason", name, s.Answer)
		}
		if l, err := Start(t.Context(), top, Options{}); (err == nil) != (s.Answer == Yes) {
			t.Errorf("%s: %+v, but Start says %v", name, s, err)
		} else if err == nil {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Setenv("PATH", t.TempDir())
	if s := Supported(all); s.Answer != No || !strings.Contains(s.Why, "nft") {
		t.Errorf("without nft: %+v", s)
	}
	if s := Supported(Topology{}); s.Answer != Yes && !strings.Contains(s.Why, "permitted") {
		t.Errorf("without nft, which is not needed: %+v", s)
	}
}
