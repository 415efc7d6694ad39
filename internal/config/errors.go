package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Error is one mistake in a file.
type Error struct {
	File         string
	Line, Column int    // from 1; columns in characters
	Path         string // the key, as services[0].listen; "" for the file as a whole
	What         string // what is wrong and what to do, in one sentence
	Excerpt      string // the line with its number, and a caret under the column; two lines without a final newline
}

// Error returns file:line:column: path: what.
func (e *Error) Error() string {
	path := e.Path
	if path != "" {
		path += ": "
	}
	return fmt.Sprintf("%s:%d:%d: %s%s", e.File, e.Line, e.Column, path, e.What)
}

// Errors is everything that is wrong with a file, sorted by position; at least
// one. Beyond [MaxErrors] the last one says that there are more.
type Errors []*Error

// MaxErrors is how many mistakes of one file are listed.
const MaxErrors = 100

// Error returns all of them with their excerpts.
func (e Errors) Error() string {
	var b strings.Builder
	for i, one := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.Error())
		if one.Excerpt != "" {
			b.WriteByte('\n')
			b.WriteString(one.Excerpt)
		}
	}
	return b.String()
}

// Unwrap returns the mistakes one by one.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// A Mistake is something wrong with a value that only its use can tell, as a
// host name that nobody knows.
type Mistake struct {
	Path string // the key, as services[0].backends[1].address; it need not be in the file
	What string // what is wrong and what to do, in one sentence
}

// Errors gives mistakes their places in the file that c was parsed of. It is
// [Errors], or nil where there is none.
func (c *Config) Errors(mistakes []Mistake) error {
	d := c.places
	if d == nil {
		d = &decoder{source: newSource(c.File, "")}
	}
	// A source of its own, for its list of mistakes.
	k := checker{decoder: &decoder{source: &source{name: d.name, lines: d.lines}, at: d.at, keyAt: d.keyAt}}
	for _, m := range mistakes {
		k.report(m.Path, "%s", m.What)
	}
	return k.result()
}

// source is a file's text by lines, and what was found wrong with it.
type source struct {
	name  string
	lines [][]rune // without their ends; at least one
	errs  Errors
	more  bool // MaxErrors was reached
}

func newSource(name, text string) *source {
	s := &source{name: name}
	for line := range strings.SplitSeq(text, "\n") {
		s.lines = append(s.lines, []rune(line))
	}
	if n := len(s.lines); n > 1 && len(s.lines[n-1]) == 0 {
		s.lines = s.lines[:n-1]
	}
	return s
}

// bad notes a mistake.
func (s *source) bad(at Position, path, format string, args ...any) {
	if s.more {
		return
	}
	what := strings.Map(oneLine, fmt.Sprintf(format, args...))
	at = s.clamp(at)
	for _, e := range s.errs {
		if e.Line == at.Line && e.Column == at.Column && e.What == what {
			return // the same text, by another alias
		}
	}
	if len(s.errs) == MaxErrors-1 {
		s.more = true
		at = s.clamp(Position{Line: len(s.lines), Column: len(s.lines[len(s.lines)-1]) + 1})
		path, what = "", fmt.Sprintf("there are more than %d mistakes; the rest is not listed", MaxErrors)
	}
	s.errs = append(s.errs, &Error{File: s.name, Line: at.Line, Column: at.Column, Path: path, What: what, Excerpt: s.excerpt(at)})
}

// oneLine keeps what a file holds from breaking a sentence, or a terminal.
func oneLine(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return unicode.ReplacementChar
}

// clamp moves a position into the file: at the end of a line at most one
// character behind it.
func (s *source) clamp(p Position) Position {
	p.Line = min(max(p.Line, 1), len(s.lines))
	p.Column = min(max(p.Column, 1), len(s.lines[p.Line-1])+1)
	return p
}

func (p Position) compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}

// result is what was found, sorted; nil for nothing.
func (s *source) result() error {
	if len(s.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(s.errs, func(a, b *Error) int {
		return Position{a.Line, a.Column}.compare(Position{b.Line, b.Column})
	})
	return s.errs
}

// excerptWidth is how many characters of a line are shown.
const excerptWidth = 100

// excerpt shows the line of p and points at its column.
func (s *source) excerpt(p Position) string {
	line, at := s.lines[p.Line-1], p.Column-1
	cut, tail := "", ""
	if len(line) > excerptWidth {
		from := min(max(at-excerptWidth/2, 0), len(line)-excerptWidth)
		if from > 0 {
			cut = "…"
		}
		if from+excerptWidth < len(line) {
			tail = "…"
		}
		line, at = line[from:from+excerptWidth], at-from
	}
	var shown, below strings.Builder
	shown.WriteString(cut)
	below.WriteString(strings.Repeat(" ", len([]rune(cut))))
	for i, c := range line {
		if c != '\t' {
			c = oneLine(c)
		}
		shown.WriteRune(c)
		switch {
		case i >= at:
		case c == '\t':
			below.WriteByte('\t')
		case unicode.In(c, unicode.Mn, unicode.Me):
		case wide(c):
			below.WriteString("  ")
		default:
			below.WriteByte(' ')
		}
	}
	number := fmt.Sprintf("%5d", p.Line)
	return number + " | " + shown.String() + tail + "\n" + strings.Repeat(" ", len(number)) + " | " + below.String() + "^"
}

// wide reports whether terminals give c two columns.
func wide(c rune) bool {
	return c >= 0x1100 && c <= 0x115f || c >= 0x2e80 && c <= 0xa4cf || c >= 0xac00 && c <= 0xd7a3 || c >= 0xf900 && c <= 0xfaff ||
		c >= 0xfe30 && c <= 0xfe6f || c >= 0xff00 && c <= 0xff60 || c >= 0x1f300 && c <= 0x1faff || c >= 0x20000 && c <= 0x3fffd
}

// quote shows a value in an error: on one line, and not for ever.
func quote(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strconv.Quote(s)
}

// list joins words as a sentence does.
func list(words []string, and string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + and + " " + words[len(words)-1]
}
