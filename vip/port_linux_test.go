package vip

import (
	"errors"
	"testing"
)

// Why there is no gate comes with what to do, where the machine lacks something.
func TestRefusedGate(t *testing.T) {
	err := errors.New("lease gate on interface 2: load programs: operation not permitted")
	if got, want := refused(err, "run as root"), err.Error()+": run as root"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := refused(err, ""); got != err.Error() {
		t.Errorf("%q, want %q", got, err)
	}
}
