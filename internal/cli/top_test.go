package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// later is a status some time after another: every counter has moved.
func later(s admin.Status, elapsed time.Duration) sample {
	s.Services = append([]admin.Service(nil), s.Services...)
	for i := range s.Services {
		sv := &s.Services[i]
		sv.Total, sv.Refused, sv.BytesIn, sv.BytesOut = sv.Total+250, sv.Refused+5, sv.BytesIn+2_500_000, sv.BytesOut+123_000_000
		sv.Backends = append([]admin.Backend(nil), sv.Backends...)
		for j := range sv.Backends {
			b := &sv.Backends[j]
			b.Total, b.BytesIn, b.BytesOut = b.Total+uint64(j), b.BytesIn+uint64(j)*1_000_000, b.BytesOut+999
		}
	}
	return sample{s, now.Add(elapsed)}
}

func TestTop(t *testing.T) {
	text := func(lines []string) string { return strings.Join(lines, "\n") + "\n" }
	var s screen
	golden(t, "top-first", text(s.frame(sample{wellStatus(), now}, 0, 0)))
	golden(t, "top-well", text(s.frame(later(wellStatus(), 2*time.Second), 0, 0)))

	s = screen{}
	s.frame(sample{degradedStatus(), now}, 0, 0)
	second := later(degradedStatus(), time.Second)
	golden(t, "top-degraded", text(s.frame(second, 0, 0)))
	s = screen{last: sample{degradedStatus(), now}}
	golden(t, "top-80x10", text(s.frame(second, 80, 10)))
}

// TestTopFits says that a frame fits its terminal, however small.
func TestTopFits(t *testing.T) {
	for columns := 1; columns < 200; columns += 7 {
		for rows := 1; rows < 40; rows++ {
			s := screen{paint: true, last: sample{degradedStatus(), now}}
			lines := s.frame(later(degradedStatus(), time.Second), columns, rows)
			if len(lines) > rows {
				t.Errorf("%d lines on a terminal of %d", len(lines), rows)
			}
			for _, l := range lines {
				if width(l) > columns {
					t.Errorf("%d cells on a terminal of %d: %q", width(l), columns, l)
				}
			}
		}
	}
}

// TestTopColumnsStay says that the columns of a later frame stand where they
// stood, when numbers become shorter.
func TestTopColumnsStay(t *testing.T) {
	var s screen
	st := degradedStatus()
	at := strings.Index(s.frame(sample{st, now}, 0, 0)[5], "WEIGHT")
	st = wellStatus()
	st.Problems = degradedStatus().Problems
	if got := strings.Index(s.frame(sample{st, now}, 0, 0)[5], "WEIGHT"); got != at || at < 0 {
		t.Errorf("the column was at %d, and is at %d", at, got)
	}
}

// TestTopAfterRestart says that a process that counts from 0 has no rates yet.
func TestTopAfterRestart(t *testing.T) {
	var s screen
	s.frame(sample{wellStatus(), now}, 0, 0)
	st := wellStatus()
	st.PID++
	st.Services[0].Total = 3
	if title := s.frame(sample{st, now.Add(time.Second)}, 0, 0)[0]; !strings.Contains(title, "new -  in -  out -") {
		t.Errorf("a new process has rates: %s", title)
	}
	// The same process, and a backend that left and came back.
	st.Services[0].Backends[0].Total = 0
	lines := s.frame(sample{st, now.Add(2 * time.Second)}, 0, 0)
	if title := lines[0]; !strings.Contains(title, "new 0/s") {
		t.Errorf("the next frame has no rates: %s", title)
	}
}
