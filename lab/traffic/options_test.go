//go:build linux

package traffic

import (
	"strings"
	"testing"
	"time"
)

func newTick(t *testing.T) <-chan time.Time {
	tick := time.NewTicker(time.Millisecond)
	t.Cleanup(tick.Stop)
	return tick.C
}

// TestOptions names the option in every error.
func TestOptions(t *testing.T) {
	ok := ClientOptions{Address: "127.0.0.1:1"}
	for want, change := range map[string]func(*ClientOptions){
		"Address":       func(o *ClientOptions) { o.Address = "" },
		"Length -1":     func(o *ClientOptions) { o.Pattern, o.Length = Upload, -1 },
		"Length with":   func(o *ClientOptions) { o.Pattern, o.Length = Push, 1 },
		"Size -1":       func(o *ClientOptions) { o.Size = -1 },
		"Size 16777217": func(o *ClientOptions) { o.Size = sizeMax + 1 },
		"Reply -1":      func(o *ClientOptions) { o.Reply = -1 },
		"Requests -1":   func(o *ClientOptions) { o.Requests = -1 },
		"Period -1ns":   func(o *ClientOptions) { o.Period = -1 },
		"Pace with":     func(o *ClientOptions) { o.Pace = 1 },
		"Pace -1ns":     func(o *ClientOptions) { o.Pattern, o.Pace = Upload, -1 },
		"no pattern 77": func(o *ClientOptions) { o.Pattern = 77 },
	} {
		o := ok
		change(&o)
		if _, err := NewClient(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	for want, o := range map[string]ProberOptions{
		"Address":  {},
		"Rate -1":  {Address: "x", Rate: -1},
		"Timeout":  {Address: "x", Timeout: -1},
		"Size":     {Address: "x", Size: chunkLen + 1},
		"Rate 1e5": {Address: "x", Rate: 100_000},
	} {
		if _, err := NewProber(o); err == nil || !strings.Contains(err.Error(), strings.Fields(want)[0]) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := NewFleet(FleetOptions{}); err == nil {
		t.Error("a fleet of nobody")
	}
	if _, err := NewFleet(FleetOptions{Groups: []Group{{Count: 0, Client: ok}}}); err == nil || !strings.Contains(err.Error(), "Groups[0]: Count") {
		t.Errorf("%v", err)
	}
}

// TestStartLine: what one side writes the other reads, and nothing else passes.
func TestStartLine(t *testing.T) {
	s := start{id: 1 << 63, pattern: ZeroWindow, length: 0, size: 7, reply: 8, count: 9, period: time.Second, pace: time.Minute, quiet: true}
	if got, err := parseStart(s.line()); err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	if len(s.line()) > startLineMax {
		t.Errorf("%d bytes", len(s.line()))
	}
	for _, bad := range []string{
		"", "GET / HTTP/1.1", startWord,
		strings.Replace(s.line(), "size=7", "size=0", 1),
		strings.Replace(s.line(), "size=7", "size=x", 1),
		strings.Replace(s.line(), "reply", "reply2", 1),
		strings.Replace(s.line(), "zero-window", "zero", 1),
		strings.Replace(s.line(), "id=8000000000000000", "id=0000000000000000", 1),
		strings.TrimSuffix(s.line(), "\n") + " more=1\n",
	} {
		if _, err := parseStart(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func FuzzParseStart(f *testing.F) {
	f.Add(start{id: 5, pattern: Push, size: 1, reply: 1, period: time.Second}.line())
	f.Fuzz(func(t *testing.T, line string) {
		s, err := parseStart(line)
		if err != nil {
			return
		}
		if again, err := parseStart(s.line()); err != nil || again != s || s.check() != nil {
			t.Errorf("%q gives %+v, which reads back as %+v, %v", line, s, again, err)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	s := newStream(1, up)
	b.SetBytes(chunkLen)
	pos := int64(0)
	buf := make([]byte, chunkLen)
	for b.Loop() {
		copy(buf, s.at(pos, chunkLen))
		if s.check(pos, buf) >= 0 {
			b.Fatal("wrong")
		}
		pos += chunkLen
	}
}
