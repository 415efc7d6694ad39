package announce

import (
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	const start = int64(time.Hour)
	var s Schedule
	if at, ok := s.Deadline(); ok || s.Due(start) {
		t.Errorf("the zero Schedule is due at %v", at)
	}
	// On time, each step once.
	s.Start(start)
	for i, step := range steps {
		at, ok := s.Deadline()
		if !ok || at != start+int64(step) {
			t.Fatalf("step %d is due at %v, %v", i, time.Duration(at), ok)
		}
		if s.Due(at - 1) {
			t.Errorf("step %d is due before its time", i)
		}
		if !s.Due(at) || s.Due(at) {
			t.Errorf("step %d is not due once at its time", i)
		}
	}
	if at, ok := s.Deadline(); ok || s.Due(start+int64(time.Hour)) {
		t.Errorf("after the last one it is due at %v", at)
	}
	// Late: once for all that was missed.
	s.Start(start)
	if !s.Due(start+int64(600*time.Millisecond)) || s.Due(start+int64(600*time.Millisecond)) {
		t.Error("it is not due once for what was missed")
	}
	if at, ok := s.Deadline(); !ok || at != start+int64(time.Second) {
		t.Errorf("the next is due at %v, %v", time.Duration(at-start), ok)
	}
	// Anew in the middle, and stopped.
	s.Start(start + 5)
	if at, ok := s.Deadline(); !ok || at != start+5 {
		t.Errorf("started anew it is due at %v, %v", at, ok)
	}
	s.Stop()
	if _, ok := s.Deadline(); ok || s.Due(start+int64(time.Hour)) {
		t.Error("stopped, and due")
	}
	s.Start(start)
	if !s.Due(start + int64(time.Hour)) {
		t.Error("an hour late nothing is due")
	}
	if _, ok := s.Deadline(); ok || s == (Schedule{}) && s.Due(start+int64(2*time.Hour)) {
		t.Error("an hour late there is still something to do afterwards")
	}
}
