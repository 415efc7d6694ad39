package config

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestExcerpt(t *testing.T) {
	s := newSource("f", "a: b\n\tx\t y: z\n日本é: e\u0301x\n"+strings.Repeat("x", 150)+"Y"+strings.Repeat("z", 150)+"\n\n")
	for _, c := range []struct {
		line, column int
		want         string
	}{
		{1, 1, "    1 | a: b\n      | ^"},
		{1, 5, "    1 | a: b\n      |     ^"},
		{1, 99, "    1 | a: b\n      |     ^"},
		{2, 6, "    2 | \tx\t y: z\n      | \t \t  ^"},
		{3, 4, "    3 | 日本é: e\u0301x\n      |      ^"},
		{3, 8, "    3 | 日本é: e\u0301x\n      |         ^"},
		{4, 151, "    4 | …" + strings.Repeat("x", 50) + "Y" + strings.Repeat("z", 49) + "…\n      | " + strings.Repeat(" ", 51) + "^"},
		{4, 1, "    4 | " + strings.Repeat("x", 100) + "…\n      | ^"},
		{5, 1, "    5 | \n      | ^"},
		{77, 3, "    5 | \n      | ^"},
		{0, 0, "    1 | a: b\n      | ^"},
	} {
		if got := s.excerpt(s.clamp(Position{c.line, c.column})); got != c.want {
			t.Errorf("%d:%d\ngot\n%s\nwant\n%s", c.line, c.column, got, c.want)
		}
	}
}

func TestError(t *testing.T) {
	_, err := Parse("/etc/h.yaml", []byte("services: []\nlog: {level: all}\n"))
	want := "/etc/h.yaml:1:11: services: there is no service; add one: name, listen and backends\n" +
		"    1 | services: []\n      |           ^\n" +
		"/etc/h.yaml:2:14: log.level: \"all\" is none of debug, info, warn and error; write one of them\n" +
		"    2 | log: {level: all}\n      |              ^"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	one, ok := errors.AsType[*Error](err)
	if !ok || one.File != "/etc/h.yaml" || one.Line != 1 || one.Column != 11 || one.Path != "services" {
		t.Errorf("the first one is %+v", one)
	}
}

// TestCut gives Parse every third beginning of the good files, and each of them without
// one of its lines: what people save too early, and what a slip of the finger
// leaves.
func TestCut(t *testing.T) {
	for _, f := range files(t, "testdata/good/*.yaml") {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for i := 0; i < len(text); i += 3 {
			all = append(all, string(text[:i]))
		}
		lines := strings.SplitAfter(string(text), "\n")
		for i := range lines {
			all = append(all, strings.Join(lines[:i], "")+strings.Join(lines[i+1:], ""))
		}
		for _, cut := range all {
			c, err := Parse("holdfast.yaml", []byte(cut))
			errs, ok := errors.AsType[Errors](err)
			switch {
			case err == nil && c != nil:
			case c != nil || !ok:
				t.Fatalf("Parse(%q) gave %v, %v", cut, c, err)
			default:
				checkErrors(t, []byte(cut), errs)
			}
			if t.Failed() {
				t.Fatalf("in %q", cut)
			}
		}
	}
}

// TestPositions holds that positions count characters, whatever stands before
// them in the line, and are the same for every kind of line end.
func TestPositions(t *testing.T) {
	for _, before := range []string{"a", "é", "日本", "\U0001F600", "e\u0301", "x\\ty", "\\\"", "''", "\\x41", "\\u00e9", "\\U0001F600", "\\ud83d\\ude00", ": ", "# ", "{[", " ", "\\\\"} {
		for _, end := range []string{"\n", "\r\n"} {
			for _, start := range []string{"", bom} {
				line := `log: {format: "` + before + `", level: all}`
				text := start + "# é" + end + "services: []" + end + line + end
				_, err := Parse("holdfast.yaml", []byte(text))
				errs, _ := errors.AsType[Errors](err)
				found := false
				for _, e := range errs {
					if e.Path == "log.level" {
						found = true
						if want := len([]rune(line)) - 3; e.Line != 3 || e.Column != want {
							t.Errorf("%q: %d:%d, want 3:%d", before, e.Line, e.Column, want)
						}
					}
				}
				if !found {
					t.Errorf("%q: %v", before, err)
				}
				checkErrors(t, []byte(text), errs)
			}
		}
	}
}

// TestMistakes gives what only the use of a file shows its place in it: that of
// the value, or of what could have it.
func TestMistakes(t *testing.T) {
	const text = "services:\n  - name: a\n    listen: 127.0.0.1:1\n    backends: [{address: x.example:1}]\n"
	mistakes := []Mistake{{"services[0].backends[0].address", "no such host"}, {"services[0].health", "no program"}}
	c := parse(t, text)
	if err := c.Errors(nil); err != nil {
		t.Errorf("nothing is wrong: %v", err)
	}
	const want = "holdfast.yaml:2:5: services[0].health: no program\n    2 |   - name: a\n      |     ^\n" +
		"holdfast.yaml:4:26: services[0].backends[0].address: no such host\n    4 |     backends: [{address: x.example:1}]\n      |                          ^"
	for range 2 { // one look leaves nothing behind
		if err := c.Errors(mistakes); err == nil || err.Error() != want {
			t.Errorf("got\n%v\nwant\n%s", err, want)
		}
	}
	if err := (&Config{File: "f"}).Errors(mistakes); err == nil || !strings.HasPrefix(err.Error(), "f:1:1: services[0].backends[0].address: no such host") {
		t.Errorf("without a text: %v", err)
	}
}
