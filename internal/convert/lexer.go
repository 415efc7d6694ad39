package convert

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bounds of what is read.
const (
	maxText  = 4 << 20  // of all files together
	maxFiles = 200      // that are included
	maxDepth = 20       // of blocks, and of files in files
	maxWord  = 16 << 10 // bytes of a word, definitions put in
	maxWords = 1 << 18
)

// Place is where something stands; lines and columns count from 1, columns in
// characters.
type Place struct {
	File         string
	Line, Column int
}

// String is file:line:column.
func (p Place) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Error is why a text cannot be read at all.
type Error struct {
	Place
	What string // what is wrong and what to do, in one sentence
}

// Error returns file:line:column: what.
func (e *Error) Error() string { return e.Place.String() + ": " + e.What }

func wrong(at Place, format string, args ...any) error {
	return &Error{Place: at, What: oneLine(fmt.Sprintf(format, args...))}
}

// word is one word of a text.
type word struct {
	text string
	at   Place
	kind kind
}

type kind uint8

const (
	plain  kind = iota
	quoted      // a word that was in quotes, or that has quotes in it
	open        // {
	shut        // }
	end         // of a line
)

// lexer takes one file apart.
type lexer struct {
	file         string
	rest         string
	line, column int
	words        []word
	defined      map[string]string // of $NAME=value lines, over all files
}

func (l *lexer) place() Place { return Place{l.file, l.line, l.column} }

// next takes one character.
func (l *lexer) next() rune {
	r, n := utf8.DecodeRuneInString(l.rest)
	l.rest = l.rest[n:]
	if r == '\n' {
		l.line++
		l.column = 1
	} else {
		l.column++
	}
	return r
}

func (l *lexer) peek() rune {
	if l.rest == "" {
		return '\n'
	}
	r, _ := utf8.DecodeRuneInString(l.rest)
	return r
}

// scan takes the whole text apart.
func (l *lexer) scan() error {
	l.line, l.column = 1, 1
	l.rest = strings.ReplaceAll(strings.TrimPrefix(l.rest, "\uFEFF"), "\r\n", "\n")
	for l.rest != "" {
		if len(l.words) > maxWords {
			return wrong(l.place(), "there are more than %d words; this is no configuration", maxWords)
		}
		at := l.place()
		switch c := l.peek(); {
		case c == '\n':
			l.next()
			l.words = append(l.words, word{at: at, kind: end})
		case unicode.IsSpace(c):
			l.next()
		case c == '#' || c == '!':
			l.comment()
		case strings.HasPrefix(l.rest, "\\\n"):
			l.next()
			l.next()
		case c == '{' || c == '}':
			l.next()
			k := open
			if c == '}' {
				k = shut
			}
			l.words = append(l.words, word{text: string(c), at: at, kind: k})
		case c == '$' && l.definition():
		default:
			if err := l.word(at); err != nil {
				return err
			}
		}
	}
	l.words = append(l.words, word{at: l.place(), kind: end})
	return nil
}

func (l *lexer) comment() {
	for l.rest != "" && l.peek() != '\n' {
		l.next()
	}
}

// definition takes a line $NAME=value, where one begins.
func (l *lexer) definition() bool {
	if n := len(l.words); n > 0 && l.words[n-1].kind != end {
		return false
	}
	name := nameAt(l.rest[1:])
	if name == "" || !strings.HasPrefix(l.rest[1+len(name):], "=") {
		return false
	}
	for range len([]rune(name)) + 2 {
		l.next()
	}
	var value strings.Builder
	for l.rest != "" && l.peek() != '\n' {
		switch c := l.next(); {
		case c == '\\' && l.peek() == '\n':
			l.next()
			value.WriteByte(' ')
		case c == '#' || c == '!':
			l.comment()
		default:
			value.WriteRune(c)
		}
	}
	if text, ok := l.expand(strings.TrimSpace(value.String())); ok {
		l.defined[name] = text
	}
	return true
}

// nameAt is the name that s begins with.
func nameAt(s string) string {
	n := strings.IndexFunc(s, func(c rune) bool { return c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c) })
	if n < 0 {
		n = len(s)
	}
	return s[:n]
}

// expand puts in what was defined; it fails where that becomes too long.
func (l *lexer) expand(s string) (string, bool) {
	if !strings.Contains(s, "$") {
		return s, len(s) <= maxWord
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "$")
		b.WriteString(before)
		if !found {
			break
		}
		name, skip := nameAt(after), 0
		if strings.HasPrefix(after, "{") {
			name = nameAt(after[1:])
			skip = 2
			if !strings.HasPrefix(after[1+len(name):], "}") {
				name = ""
			}
		}
		if value, ok := l.defined[name]; ok && name != "" {
			b.WriteString(value)
			after = after[len(name)+skip:]
		} else {
			b.WriteByte('$')
		}
		if b.Len() > maxWord {
			return "", false
		}
		s = after
	}
	return b.String(), b.Len() <= maxWord
}

// word takes one word, in quotes or not.
func (l *lexer) word(at Place) error {
	var b strings.Builder
	w := word{at: at}
	for l.rest != "" {
		c := l.peek()
		if unicode.IsSpace(c) || c == '#' || c == '!' && b.String() != "@" || c == '}' || c == '{' && !strings.HasSuffix(b.String(), "$") {
			break
		}
		l.next()
		switch {
		case c == '\\' && l.rest != "" && l.peek() != '\n':
			b.WriteRune(l.next())
		case c == '"':
			w.kind = quoted
			if err := l.quote(at, &b); err != nil {
				return err
			}
		case c == '{': // ${NAME}
			b.WriteRune(c)
			for l.rest != "" && l.peek() != '}' && l.peek() != '\n' {
				b.WriteRune(l.next())
			}
			if l.peek() == '}' {
				b.WriteRune(l.next())
			}
		default:
			b.WriteRune(c)
		}
		if strings.HasPrefix(l.rest, "\\\n") {
			break
		}
	}
	text, ok := l.expand(b.String())
	if !ok {
		return wrong(at, "this word has more than %d bytes; is a quote missing?", maxWord)
	}
	if w.kind == plain && text != b.String() { // what was defined may be several words
		for _, one := range strings.Fields(text) {
			l.words = append(l.words, word{text: one, at: at})
		}
		return nil
	}
	w.text = text
	l.words = append(l.words, w)
	return nil
}

// quote takes what is in quotes, to the one that ends it.
func (l *lexer) quote(at Place, b *strings.Builder) error {
	for l.rest != "" && l.peek() != '\n' {
		switch c := l.next(); {
		case c == '"':
			return nil
		case c == '\\' && (l.peek() == '"' || l.peek() == '\\'):
			b.WriteRune(l.next())
		case c == '\\' && l.peek() == '\n':
			l.next()
		default:
			b.WriteRune(c)
		}
	}
	return wrong(at, "the closing quote is missing on this line")
}

// oneLine keeps what a file holds from breaking a sentence, or a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
}
