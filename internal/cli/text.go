package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// size is a number of bytes for a person, in powers of 1000: "1.2 MB".
func size(n uint64) string { return scaled(float64(n), "B") }

// scaled puts a prefix before the unit, and leaves two or three digits.
func scaled(f float64, unit string) string {
	if f < 999.5 {
		return strconv.Itoa(int(math.Round(f))) + " " + unit
	}
	const prefixes = "kMGTPE"
	i := -1
	for f >= 999.5 && i < len(prefixes)-1 {
		f /= 1000
		i++
	}
	digits := 0
	if f < 99.95 {
		digits = 1
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + prefixes[i:i+1] + unit
}

// memory is a number of bytes for a person as memory is counted, in powers of
// 1024, and as its limits are set: "1.2 GiB".
func memory(n uint64) string {
	f, units := float64(n)/1024, []string{"KiB", "MiB", "GiB", "TiB"}
	for f >= 999.5 && len(units) > 1 {
		f /= 1024
		units = units[1:]
	}
	digits := 0
	if f < 99.95 {
		digits = 1
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + units[0]
}

// rate is something that happens so often in a second; "-" where it is not known.
func rate(perSecond float64, unit string) string {
	switch {
	case math.IsNaN(perSecond):
		return "-"
	case unit != "":
		return scaled(perSecond, unit) + "/s"
	case perSecond > 0 && perSecond < 9.95:
		return strconv.FormatFloat(perSecond, 'f', 1, 64) + "/s"
	}
	return number(uint64(math.Round(perSecond))) + "/s"
}

// number is a count in a sentence: "9,000".
func number[N int | uint64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count is a number of things: "1 backend", "5 backends".
func count[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return number(n) + " " + thing + "s"
}

// span is a time for a person: two units at most, and never longer than seven
// characters.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "-" + span(-d)
	case d == 0:
		return "0s"
	case d < time.Millisecond:
		return "<1ms"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%d.%ds", d/time.Second, d%time.Second/(100*time.Millisecond))
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d < 1000*day:
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}

// micro is a short time for a person: span says no more than <1ms of it.
func micro(d time.Duration) string {
	if d > 0 && d < time.Millisecond {
		return strconv.Itoa(max(int(d.Microseconds()), 1)) + "us"
	}
	return span(d)
}

// since is the time from t to now; a clock that was set back makes it nothing.
func since(now, t time.Time) string { return span(max(now.Sub(t), 0)) }

// stamp is a moment to the millisecond.
const stamp = "2006-01-02 15:04:05.000"

// plain is text from elsewhere, as a terminal may be given it: nothing in it
// moves the cursor, changes colours or turns the direction of writing.
func plain(s string) string {
	if !strings.ContainsFunc(s, unwelcome) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unwelcome(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unwelcome says which runes a terminal acts on instead of showing them; a tab
// does no harm.
func unwelcome(r rune) bool {
	return unicode.IsControl(r) && r != '\t' || r == '\u2028' || r == '\u2029' ||
		r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// width is how many cells of a terminal s takes; escape sequences take none.
func width(s string) int {
	n, escape := 0, false
	for _, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			n += runeWidth(r)
		}
	}
	return n
}

// wide are the blocks whose characters take two cells, as UAX 11 has them.
var wide = []struct{ from, to rune }{
	{0x1100, 0x115f}, {0x231a, 0x231b}, {0x2e80, 0x303e}, {0x3041, 0xa4cf}, {0xa960, 0xa97c}, {0xac00, 0xd7a3},
	{0xf900, 0xfaff}, {0xfe30, 0xfe6f}, {0xff00, 0xff60}, {0xffe0, 0xffe6}, {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff},
	{0x1f900, 0x1f9ff}, {0x20000, 0x3fffd},
}

func runeWidth(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	for _, b := range wide {
		if r >= b.from && r <= b.to {
			return 2
		}
	}
	return 1
}

// cut shortens s to a number of cells, with a mark where something is missing.
// Styles that it begins are ended.
func cut(s string, cells int) string {
	if width(s) <= cells {
		return s
	}
	var b strings.Builder
	n, escape, styled := 0, false, false
	for _, r := range s {
		if r == '\x1b' {
			escape, styled = true, true
		}
		if escape {
			escape = r != 'm'
			b.WriteRune(r)
			continue
		}
		if n += runeWidth(r); n > cells-1 {
			break
		}
		b.WriteRune(r)
	}
	if cells > 0 {
		b.WriteString("…")
	}
	if styled {
		b.WriteString(reset)
	}
	return b.String()
}

// A style says how text looks where a terminal shows it.
type style string

const (
	normal style = ""
	bold   style = "\x1b[1m"
	faint  style = "\x1b[2m"
	red    style = "\x1b[31m"
	green  style = "\x1b[32m"
	yellow style = "\x1b[33m"

	reset = "\x1b[0m"
)

// A painter styles text, or leaves it as it is where nobody would see it.
type painter bool

func (p painter) paint(st style, s string) string {
	if !bool(p) || st == normal || s == "" {
		return s
	}
	return string(st) + s + reset
}

// state paints the state of a node, a service or a backend.
func (p painter) state(s string) string {
	switch s {
	case "up", "well", "active", "synced":
		return p.paint(green, s)
	case "down", "degraded", "fault":
		return p.paint(red, s)
	case "drain", "stopping", "syncing":
		return p.paint(yellow, s)
	}
	return plain(s)
}
