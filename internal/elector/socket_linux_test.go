package elector

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/vip"
)

func dial(t *testing.T, dir string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", socketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn)
}

func TestGarbageOnTheSocket(t *testing.T) {
	dir := runtimeDir(t)
	d := open(t, dir, nil)
	frame := func(text string) string {
		return string([]byte{0, 0, byte(len(text) >> 8), byte(len(text))}) + text
	}
	for name, text := range map[string]string{
		"no frame":     "GET / HTTP/1.1\r\n\r\n",
		"too long":     "\x7f\xff\xff\xff",
		"too short":    "\x00\x00\x00\x01x",
		"no JSON":      frame("hello"),
		"no hello":     frame(`{"alive":{}}`),
		"nothing":      frame(`{}`),
		"half a frame": frame(`{"hello":{}}`)[:8],
	} {
		c := dial(t, dir)
		if _, err := c.Write([]byte(text)); err != nil {
			t.Error(err)
		}
		_ = c.CloseWrite()
		got, err := io.ReadAll(c)
		if len(got) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s was answered with %q, %v", name, got, err)
		}
	}
	d.Deliver([]byte("well"))
	if b := next(t, "the daemon is heard", d.beats); b != "well" {
		t.Errorf("the beat is %q", b)
	}
	d.end()

	// A daemon that says what none says is cut off, and the next one is served.
	for name, text := range map[string]string{
		"an unknown part": frame(`{"hallo":{}}`), "an unknown field": frame(`{"alive":{"x":1}}`), "two parts": frame(`{"alive":{},"link_down":{}}`),
		"an elector's": frame(`{"status":{"groups":[]}}`), "more behind it": frame(`{"alive":{}} {}`), "replace without a program": frame(`{"replace":{}}`),
	} {
		c := dial(t, dir)
		l := &link{conn: c, in: &receiver{conn: c}}
		if _, err := (&Client{}).greet(l); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Write([]byte(text)); err != nil {
			t.Error(err)
		}
		for {
			if _, err := l.in.next(); err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s: %v", name, err)
				}
				break
			}
		}
	}
	open(t, dir, nil)
}

// TestSlowDaemon has a daemon that reads nothing: the owner is not held up, what
// is lost is counted, and another daemon takes its place.
func TestSlowDaemon(t *testing.T) {
	dir := runtimeDir(t)
	d := open(t, dir, nil)
	d.Deliver([]byte("own front"))
	next(t, "it owns", d.changes)
	d.end()
	c := dial(t, dir)
	l := &link{conn: c, in: &receiver{conn: c}}
	if _, err := (&Client{}).greet(l); err != nil {
		t.Fatal(err)
	}
	b, err := appendFrame(nil, &message{Beat: &beat{Data: []byte("flood front")}})
	if err == nil {
		_, err = c.Write(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	second := open(t, dir, nil)
	second.status("it is served", func(s vip.Status) bool { return s.Role == vip.Active })
	if n := len(second.changes); n > maxLoss+8 {
		t.Errorf("%d changes were kept for it", n)
	}
}

func FuzzFrames(f *testing.F) {
	for _, m := range []*message{
		{Hello: &hello{Protocol: 1, Build: "b"}},
		{Configure: &configure{ID: 1, Settings: Settings{Node: "n", Groups: []Group{group("front")}}}},
		{Status: &status{Groups: []vip.Status{{Group: "front", Role: vip.Active}}}},
		{Step: &step{ID: 3, Event: vip.Event{Group: "front", When: vip.Draining}, Bound: time.Second}},
		{Change: &vip.Change{Group: "front", Kind: vip.KindRole}}, {Beat: &beat{Data: []byte{1, 2}}}, {Alive: &alive{}},
	} {
		b, err := appendFrame(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := readFrame(strings.NewReader(string(b)), nil)
		if err != nil {
			return
		}
		if len(text) > len(b) {
			t.Fatalf("%d bytes of %d", len(text), len(b))
		}
		if m, err := decodeFirst(text); err == nil && m == nil {
			t.Fatal("neither a message nor an error")
		}
		m, err := decode(text)
		if err != nil {
			if m != nil {
				t.Fatal("a message and an error")
			}
			return
		}
		again, err := appendFrame(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		text2, err := readFrame(strings.NewReader(string(again)), nil)
		if err != nil {
			t.Fatal(err)
		}
		m2, err := decode(text2)
		if err != nil {
			t.Fatalf("%s was read and written as %s, which cannot be read: %v", text, text2, err)
		}
		if third, err := appendFrame(nil, m2); err != nil || string(third) != string(again) {
			t.Fatalf("%s became %s and then %s", text, again, third)
		}
	})
}
