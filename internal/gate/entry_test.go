package gate

import "testing"

func TestModeNames(t *testing.T) {
	for m, want := range map[Mode]string{Closed: "closed", Own: "own", Handing: "handing", Taking: "taking", Passing: "passing", 9: "Mode(9)"} {
		if got := m.String(); got != want {
			t.Errorf("mode %d is called %q, want %q", uint8(m), got, want)
		}
	}
}
