//go:build linux

package traffic

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Pattern is how a connection behaves.
type Pattern uint8

// The patterns.
const (
	Idle       Pattern = iota // the client says nothing after the start line, and listens
	Request                   // the client sends requests of Size bytes, the server answers each with Reply bytes
	Upload                    // the client sends Length bytes, half-closes and waits for the end of stream
	Download                  // the server sends Length bytes and ends the stream
	Push                      // the server sends Size bytes every Period
	ZeroWindow                // the server sends in bulk, the client does not read
)

var patternNames = [...]string{"idle", "request", "upload", "download", "push", "zero-window"}

// String returns the pattern's name, as "zero-window".
func (p Pattern) String() string {
	if int(p) < len(patternNames) {
		return patternNames[p]
	}
	return "pattern " + strconv.Itoa(int(p))
}

// MarshalText returns the pattern's name.
func (p Pattern) MarshalText() ([]byte, error) {
	if int(p) >= len(patternNames) {
		return nil, fmt.Errorf("traffic: no pattern %d", p)
	}
	return []byte(p.String()), nil
}

// UnmarshalText sets the pattern by its name.
func (p *Pattern) UnmarshalText(text []byte) error {
	i := slices.Index(patternNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("traffic: no pattern %q: use one of %s", text, strings.Join(patternNames[:], ", "))
	}
	*p = Pattern(i)
	return nil
}

// start is what a client's first line says: all that the server must know.
type start struct {
	id      uint64
	pattern Pattern
	length  int64         // upload, download: bytes; 0 = until the client half-closes
	size    int           // bytes of a request, a pushed message or a chunk
	reply   int           // request: bytes of an answer
	count   int           // request: the server ends the stream after so many; 0 = no limit
	period  time.Duration // push, paced download: time between messages or chunks; 0 = bulk
	pace    time.Duration // upload: time between two reads of the server; 0 = at once
	quiet   bool          // no event if all is well
}

const (
	startWord    = "HOLDFAST-TRAFFIC/1"
	startLineMax = 256
	greetingWord = "OK"
	greetingMax  = 128
	sizeMax      = 16 << 20
)

// line renders the start line with its newline. Text, so that a person with a
// packet dump or netcat can follow.
func (s start) line() string {
	quiet := 0
	if s.quiet {
		quiet = 1
	}
	return fmt.Sprintf("%s id=%016x pattern=%s length=%d size=%d reply=%d count=%d period=%s pace=%s quiet=%d\n",
		startWord, s.id, s.pattern, s.length, s.size, s.reply, s.count, s.period, s.pace, quiet)
}

// parseStart reads a start line, strictly: every key once, nothing else.
func parseStart(line string) (s start, err error) {
	word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if word != startWord {
		return s, fmt.Errorf("traffic: start line begins with %.20q, not %s: not a client of this package", word, startWord)
	}
	keys := []string{"id", "pattern", "length", "size", "reply", "count", "period", "pace", "quiet"}
	fields := strings.Split(rest, " ")
	if len(fields) != len(keys) {
		return s, fmt.Errorf("traffic: start line has %d fields, not %d", len(fields), len(keys))
	}
	for i, f := range fields {
		key, v, _ := strings.Cut(f, "=")
		if key != keys[i] {
			return s, fmt.Errorf("traffic: start line: field %d is %.20q, not %s=", i+1, f, keys[i])
		}
		switch key {
		case "id":
			s.id, err = strconv.ParseUint(v, 16, 64)
		case "pattern":
			err = s.pattern.UnmarshalText([]byte(v))
		case "length":
			s.length, err = strconv.ParseInt(v, 10, 64)
		case "size":
			s.size, err = strconv.Atoi(v)
		case "reply":
			s.reply, err = strconv.Atoi(v)
		case "count":
			s.count, err = strconv.Atoi(v)
		case "period":
			s.period, err = time.ParseDuration(v)
		case "pace":
			s.pace, err = time.ParseDuration(v)
		case "quiet":
			s.quiet, err = strconv.ParseBool(v)
		}
		if err != nil {
			return s, fmt.Errorf("traffic: start line: %s: %w", key, err)
		}
	}
	return s, s.check()
}

// check holds the bounds for both sides.
func (s start) check() error {
	switch {
	case s.id == 0:
		return errors.New("traffic: ID is 0")
	case int(s.pattern) >= len(patternNames):
		return fmt.Errorf("traffic: no pattern %d", s.pattern)
	case s.length < 0:
		return fmt.Errorf("traffic: Length %d is negative", s.length)
	case s.size < 1 || s.size > sizeMax:
		return fmt.Errorf("traffic: Size %d is not in 1..%d", s.size, sizeMax)
	case s.reply < 1 || s.reply > sizeMax:
		return fmt.Errorf("traffic: Reply %d is not in 1..%d", s.reply, sizeMax)
	case s.count < 0:
		return fmt.Errorf("traffic: Count %d is negative", s.count)
	case s.period < 0:
		return fmt.Errorf("traffic: Period %v is negative", s.period)
	case s.pace < 0:
		return fmt.Errorf("traffic: Pace %v is negative", s.pace)
	case s.period == 0 && s.pattern == Push:
		return errors.New("traffic: Period 0 with push")
	}
	return nil
}
