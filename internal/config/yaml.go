package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// MaxFileSize is how many bytes a file has at most: enough for one service with
// balance.MaxBackends.
const MaxFileSize = 4 << 20

// Bounds of a file. They are far above what a person writes, and keep a mistake
// (the wrong file, a loop in the program that wrote it) from taking the node's
// memory and time: the YAML library recurses with the depth, and has loops in
// loops over long lines, over long mappings and over text in blocks.
const (
	maxLine      = 4096 // characters
	maxDepth     = 32   // mappings and lists in one another
	maxKeys      = 256  // of one mapping
	maxEmpty     = 500  // empty lines in a row
	maxNulls     = 256  // keys and entries without a value
	maxBlockText = 16 << 10
	maxNodes     = 2_000_000 // values, with what aliases stand for
)

// kind is what a node is.
type kind uint8

const (
	null kind = iota
	scalar
	mapping
	sequence
	broken // already complained about
)

// node is a value of the file. An alias is the node that it stands for.
type node struct {
	kind    kind
	at      Position
	text    string // of a scalar
	quoted  bool   // it is a text, whatever it looks like
	entries []entry
	items   []item
}

// entry is a key of a mapping with its value.
type entry struct {
	key   string
	at    Position // of the key
	value *node
	// merged says that the key came by <<, and that the mapping's own wins.
	merged bool
}

// item is a value in a list, and where it stands: an alias stands elsewhere than
// its value.
type item struct {
	at    Position
	value *node
}

// check looks for what no file may have, before the text is parsed. It reports
// whether to go on.
func (s *source) check(text string) bool {
	if strings.TrimSpace(strings.TrimPrefix(text, bom)) == "" {
		s.bad(Position{}, "", "the file is empty; it needs at least `services`")
		return false
	}
	empty := 0
	for i, line := range s.lines {
		at := Position{Line: i + 1}
		for j, c := range line {
			at.Column = j + 1
			switch {
			case c == utf8.RuneError:
				s.bad(at, "", "this is not UTF-8 text; save the file as UTF-8")
				return false
			case c == '\r':
				s.bad(at, "", "a carriage return in the middle of a line; end lines by a line feed")
				return false
			case c == '\uFEFF':
				s.bad(at, "", "an invisible byte order mark (U+FEFF) in the middle of the file; delete it")
				return false
			case control(c) && c != '\t':
				s.bad(at, "", `a control character (U+%04X); write it in double quotes as "\x%02x"`, c, c)
				return false
			case j == maxLine:
				s.bad(at, "", "this line has %d characters; a line has at most %d", len(line), maxLine)
				return false
			}
		}
		if empty++; strings.TrimSpace(string(line)) != "" {
			empty = 0
		}
		if empty > maxEmpty {
			s.bad(Position{i + 1, 1}, "", "more than %d empty lines in a row; delete some", maxEmpty)
			return false
		}
	}
	return s.checkBlocks()
}

// blockHeader is a line that begins a text in a block: key: |
var blockHeader = regexp.MustCompile(`^( *(?:- +)*)(?:[^\s#:][^:]*: +)?(?:[&!]\S* +)*[|>][-+0-9]*(?:\s+#.*)?\s*$`)

func (s *source) checkBlocks() bool {
	for i := 0; i < len(s.lines); i++ {
		m := blockHeader.FindStringSubmatch(string(s.lines[i]))
		if m == nil {
			continue
		}
		size, first := 0, i
		for i+1 < len(s.lines) {
			line := strings.TrimRight(string(s.lines[i+1]), " ")
			if line != "" && len(line)-len(strings.TrimLeft(line, " ")) <= len(m[1])-strings.Count(m[1], "-") {
				break
			}
			i++
			if size += len(line) + 1; size > maxBlockText {
				s.bad(Position{first + 1, 1}, "", "the text that begins here is longer than %d bytes; no value of this file is", maxBlockText)
				return false
			}
		}
	}
	return true
}

// parse makes a node of the text; nil where that is not possible, or nothing is
// there.
func (s *source) parse(text string) *node {
	tokens := lexer.Tokenize(text)
	if !s.checkTokens(tokens) {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		s.syntax(err)
		return nil
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil || reflect.ValueOf(d.Body).IsNil() {
			continue
		}
		if body != nil {
			s.bad(s.position(d.Body.GetToken()), "", "a second document begins here; a node has one, in one file: delete the line `---` above, or what follows it")
			return nil
		}
		body = d.Body
	}
	if body == nil {
		s.bad(Position{}, "", "there is nothing in the file but comments; it needs at least `services`")
		return nil
	}
	c := converter{source: s, anchors: make(map[string]*node)}
	return c.node(body, "", 0)
}

// checkTokens refuses what the parser would recurse on without an end, and what
// the configuration has no use for.
func (s *source) checkTokens(tokens token.Tokens) bool {
	dashes, line := 0, 0
	var flows []token.Type // the brackets and braces that are open
	type block struct{ column, keys int }
	var blocks []block
	var last, key *token.Token // key stands before the colon that is last
	nulls := 0
	for _, t := range tokens {
		at := s.position(t)
		if noValueBetween(key, last, t, len(flows) > 0 && flows[len(flows)-1] == token.MappingStartType) {
			if nulls++; nulls > maxNulls {
				s.bad(at, "", "more than %d keys and entries of lists have no value; write them, or delete these lines", maxNulls)
				return false
			}
		}
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flows = append(flows, t.Type)
		case token.MappingEndType, token.SequenceEndType:
			flows = flows[:max(len(flows)-1, 0)]
		case token.SequenceEntryType:
			dashes++
		case token.MappingKeyType:
			s.bad(at, "", "keys that begin with ? are not supported; write `key: value`")
			return false
		case token.TagType:
			s.bad(at, "", "tags as %s are not supported; a text is written in quotes, everything else as it is", quote(t.Value))
			return false
		case token.SingleQuoteType, token.DoubleQuoteType:
			if strings.Contains(strings.TrimSpace(t.Origin), "\n") {
				s.bad(at, "", "the text that begins here goes on in the next line; is its closing quote missing? A text in quotes is on one line")
				return false
			}
			if t.Type == token.DoubleQuoteType && !s.checkEscapes(at) {
				return false
			}
		case token.DirectiveType:
			s.bad(at, "", "a value cannot begin with %%, and directives are not supported; write a value in quotes, delete a directive")
			return false
		case token.MappingValueType:
			column := t.Position.Column
			if last != nil {
				column = last.Position.Column
			}
			for len(blocks) > 0 && blocks[len(blocks)-1].column > column {
				blocks = blocks[:len(blocks)-1]
			}
			if len(flows) > 0 {
				break
			}
			if len(blocks) == 0 || blocks[len(blocks)-1].column < column {
				blocks = append(blocks, block{column: column})
			}
			b := &blocks[len(blocks)-1]
			if b.keys++; b.keys > maxKeys {
				s.bad(at, "", "more than %d keys in one mapping; no mapping of this file has that many: is a `-` missing before each entry of a list?", maxKeys)
				return false
			}
		default:
		}
		if len(flows) > maxDepth || dashes > maxDepth/2 || len(blocks) > maxDepth {
			s.bad(at, "", "nested more than %d levels deep; nothing in this file is", maxDepth)
			return false
		}
		if t.Type == token.SequenceEntryType {
			for len(blocks) > 0 && blocks[len(blocks)-1].column > t.Position.Column {
				blocks = blocks[:len(blocks)-1]
			}
		}
		key, last = last, t
	}
	return true
}

// hexDigits is how many of them follow a letter behind a backslash.
var hexDigits = map[rune]int{'x': 2, 'u': 4, 'U': 8}

// checkEscapes looks into the text in double quotes that begins at p: the library
// takes any characters for hexadecimal digits, and loses some tabs.
func (s *source) checkEscapes(p Position) bool {
	line := s.lines[p.Line-1]
	for i := p.Column; i < len(line); i++ {
		at := Position{p.Line, i + 1}
		switch {
		case line[i] == '"':
			return true
		case line[i] == '\t':
			s.bad(at, "", `there is a tab in this text; write it as \t`)
			return false
		case line[i] != '\\' || i+1 == len(line):
			continue
		}
		i++
		n := hexDigits[line[i]]
		if n == 0 {
			continue
		}
		digits := string(line[i+1 : min(i+1+n, len(line))])
		code, err := strconv.ParseUint(digits, 16, 32)
		switch {
		case err != nil || len(digits) != n:
			s.bad(at, "", `%d hexadecimal digits follow \%c; write them, or \\ for a backslash`, n, line[i])
			return false
		case code > unicode.MaxRune || line[i] == 'U' && code >= 0xd800 && code < 0xe000:
			s.bad(at, "", `there is no character \U%s; the last one is \U0010ffff`, digits)
			return false
		}
		i += n
	}
	return true
}

// noValueBetween reports whether the key or entry that ends with last, a colon or
// a dash, has no value because t comes next. A word by itself in braces is a key.
func noValueBetween(key, last, t *token.Token, braces bool) bool {
	if last == nil {
		return false
	}
	closes := t.Type == token.CollectEntryType || t.Type == token.MappingEndType || t.Type == token.SequenceEndType
	below := t.Position.Line > last.Position.Line
	switch last.Type {
	case token.SequenceEntryType:
		return closes || below && t.Position.Column <= last.Position.Column
	case token.MappingValueType:
		return closes || key == nil || below && (t.Position.Column < key.Position.Column || t.Position.Column == key.Position.Column && t.Type != token.SequenceEntryType)
	}
	return braces && closes && key != nil && (key.Type == token.MappingStartType || key.Type == token.CollectEntryType)
}

// position is where a token stands. The library's columns are off by one behind
// some tabs; where the text is not what the token says, it is looked for nearby.
func (s *source) position(t *token.Token) Position {
	if t == nil || t.Position == nil {
		return s.clamp(Position{})
	}
	p := s.clamp(Position{t.Position.Line, t.Position.Column})
	var first rune
	switch t.Type {
	case token.InvalidType:
		return p
	case token.SingleQuoteType:
		first = '\''
	case token.DoubleQuoteType:
		first = '"'
	default:
		first, _ = utf8.DecodeRuneInString(t.Value)
	}
	line := s.lines[p.Line-1]
	if first == ' ' || first == '\n' {
		return p
	}
	for _, c := range []int{p.Column, p.Column + 1, p.Column + 2, p.Column - 1, p.Column - 2} {
		if c >= 1 && c <= len(line) && line[c-1] == first {
			return Position{p.Line, c}
		}
	}
	return p
}

// converter makes nodes of what the library has parsed.
type converter struct {
	*source
	anchors map[string]*node
	within  []string // anchors that are not complete yet
}

func (c *converter) node(n ast.Node, path string, depth int) *node {
	if n == nil || reflect.ValueOf(n).IsNil() {
		return &node{at: c.clamp(Position{})}
	}
	out := &node{kind: broken, at: c.position(n.GetToken())}
	if depth > maxDepth {
		c.bad(out.at, path, "nested more than %d levels deep; nothing in this file is", maxDepth)
		return out
	}
	switch n := n.(type) {
	case *ast.NullNode:
		out.kind = null
	case *ast.StringNode:
		out.kind, out.text = scalar, n.Value
		out.quoted = n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
		if i := strings.Index(n.Value, ": "); !out.quoted && i > 0 {
			c.bad(out.at, path, "%s has a `: ` in it; is a comma missing before it? A text like this is written in quotes", quote(n.Value))
			out.kind = broken
		}
	case *ast.LiteralNode:
		out.kind, out.text, out.quoted = scalar, n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text = scalar, n.GetToken().Value
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			out.at = c.position(n.Values[0].Key.GetToken())
		}
		c.mapping(out, n.Values, path, depth)
	case *ast.MappingValueNode:
		out.at = c.position(n.Key.GetToken())
		c.mapping(out, []*ast.MappingValueNode{n}, path, depth)
	case *ast.SequenceNode:
		out.kind = sequence
		for i, v := range n.Values {
			value := c.node(v, fmt.Sprintf("%s[%d]", path, i), depth+1)
			at := value.at
			if a, ok := v.(*ast.AliasNode); ok {
				at = c.position(a.Start)
			}
			out.items = append(out.items, item{at, value})
		}
	case *ast.AnchorNode:
		name := n.Name.GetToken().Value
		c.within = append(c.within, name)
		value := c.node(n.Value, path, depth)
		c.within = c.within[:len(c.within)-1]
		c.anchors[name] = value
		return value
	case *ast.AliasNode:
		return c.alias(n, out, path)
	default:
		c.bad(out.at, path, "this is YAML that the configuration has no use for; write `key: value`, or a list of values")
	}
	return out
}

func (c *converter) alias(n *ast.AliasNode, out *node, path string) *node {
	name := n.Value.GetToken().Value
	for _, w := range c.within {
		if w == name {
			c.bad(out.at, path, "*%s stands inside of what &%s names, and would never end; write the value out", name, name)
			return out
		}
	}
	value, ok := c.anchors[name]
	switch {
	case ok:
		return value
	case strings.HasPrefix(name, ":"):
		c.bad(out.at, path, "*%s means every address elsewhere; here write %s", name, quote(name))
	default:
		c.bad(out.at, path, "*%s stands for a value named &%s, and there is none above; a text that begins with * is written in quotes", name, name)
	}
	return out
}

func (c *converter) mapping(out *node, values []*ast.MappingValueNode, path string, depth int) {
	if len(values) > maxKeys { // in braces: others have not come so far
		c.bad(c.position(values[maxKeys].Key.GetToken()), path, "more than %d keys in one mapping; no mapping of this file has that many", maxKeys)
		out.kind = broken
		return
	}
	out.kind = mapping
	seen := make(map[string]Position)
	var merges []entry
	for _, v := range values {
		at := c.position(v.Key.GetToken())
		if _, ok := v.Key.(*ast.MergeKeyNode); ok {
			merges = append(merges, entry{at: at, value: c.node(v.Value, join(path, "<<"), depth+1)})
			continue
		}
		switch v.Key.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		default:
			c.bad(at, path, "this cannot be a key; a key is a word, as in `name: web`")
			continue
		}
		key := v.Key.GetToken().Value
		p := join(path, printable(key))
		if first, ok := seen[key]; ok {
			c.bad(at, p, "`%s` is here twice, first in line %d; leave one out", printable(key), first.Line)
			continue
		}
		seen[key] = at
		value := c.node(v.Value, p, depth+1)
		if value.kind == null {
			value = &node{kind: null, at: at}
		}
		out.entries = append(out.entries, entry{key: key, at: at, value: value})
	}
	for _, m := range merges {
		c.merge(out, m, seen, path)
	}
}

// merge adds the keys of what << names; the mapping's own come first.
func (c *converter) merge(out *node, m entry, seen map[string]Position, path string) {
	from := []*node{m.value}
	if m.value.kind == sequence {
		from = from[:0]
		for _, i := range m.value.items {
			from = append(from, i.value)
		}
	}
	for _, n := range from {
		if n.kind != mapping {
			if n.kind != broken {
				c.bad(m.at, join(path, "<<"), "`<<` takes the keys of another mapping: write `<<: *name`, where &name stands before a mapping")
			}
			continue
		}
		for _, e := range n.entries {
			if _, ok := seen[e.key]; !ok {
				seen[e.key] = e.at
				e.merged = true
				out.entries = append(out.entries, e)
			}
		}
	}
}

// printable makes a key fit into a sentence.
func printable(key string) string {
	q := quote(key)
	return q[1 : len(q)-1]
}

// libraryError is what the library's errors can tell.
type libraryError interface {
	error
	GetToken() *token.Token
	GetMessage() string
}

var (
	bracketsAndPort = regexp.MustCompile(`\[[0-9A-Fa-f:.%a-z]*\]:[0-9]+`)
	noSpace         = regexp.MustCompile(`^\s*(?:- +)*([A-Za-z_]+):([^\s/:].*)$`)
	keyOnLine       = regexp.MustCompile(`^\s*(?:- +)*([A-Za-z_]+)(\s|$)`)
)

// syntax says in words what the library did not understand.
func (s *source) syntax(err error) {
	e, ok := errors.AsType[libraryError](err)
	if !ok {
		s.bad(Position{}, "", "this is not YAML: %v", err)
		return
	}
	at := s.position(e.GetToken())
	line := string(s.lines[at.Line-1])
	first := at.Column-1 <= len(line)-len(strings.TrimLeft(line, " "))
	msg := e.GetMessage()
	has := func(part string) bool { return strings.Contains(msg, part) }
	switch {
	case has("cannot start any token") || has("tab character"):
		for i, c := range s.lines[at.Line-1] {
			if c == '\t' && i+1 <= at.Column || c == '\t' && s.lines[at.Line-1][at.Column-1] != '\t' && i > at.Column {
				at.Column = i + 1
				break
			}
		}
		s.bad(at, "", "there is a tab in this line, and YAML takes spaces only; write spaces")
	case has("could not find end character of double") && !s.checkEscapes(at):
		// It has swallowed the closing quote.
	case has("could not find end character of"):
		s.bad(at, "", "this quote is never closed; put the same one at the end of the value")
	case bracketsAndPort.MatchString(line) && (has("value is not allowed") || has("must be specified")):
		p := bracketsAndPort.FindStringIndex(line)
		at.Column = len([]rune(line[:p[0]])) + 1
		s.bad(at, "", "an address in brackets is written in quotes: %s", quote(line[p[0]:p[1]]))
	case has("must be specified"):
		s.bad(at, "", "a `,` or the closing bracket is missing before this")
	case has("end token") && has("not found"):
		s.bad(at, "", "this bracket is never closed")
	case has("is a reserved character"):
		s.bad(at, "", "a value cannot begin with this character; write it in quotes")
	case has("unknown escape character"):
		s.bad(at, "", `in double quotes a backslash begins one of \r \n \t \x00 \" \\; write \\ for a backslash, or use single quotes`)
	case has("unexpected key name"):
		if m := noSpace.FindStringSubmatch(line); m != nil {
			s.bad(at, "", "there is no space after the colon; write `%s: %s`", m[1], printable(m[2]))
		} else if m := keyOnLine.FindStringSubmatch(line); m != nil {
			s.bad(at, "", "there is no colon after `%s`; write `%s: value`", m[1], m[1])
		} else {
			s.bad(at, "", "this is no key; write `key: value`")
		}
	case has("mapping value is not allowed"):
		s.notAllowed(at, line)
	case has("block sequence entries are not allowed"):
		s.bad(at, "", "a list begins on a line of its own; write each `- ` under the key, or all in brackets: [a, b]")
	case has("value is not allowed") && first:
		s.bad(at, "", "the indentation of this line fits none above; the keys of one mapping, and the `-` of one list, stand in one column")
	case has("value is not allowed"):
		s.bad(at, "", "there is something behind the end of the value; put all of it in quotes, or begin a comment with ` #`")
	case has("invalid key") || has("map key"):
		s.bad(at, "", "this cannot be a key; a key is a word, as in `name: web`")
	case has("undefined alias name"):
		s.bad(at, "", "a text that begins with * is written in quotes")
	case has("undefined anchor value"), has("could not find anchor value"):
		s.bad(at, "", "a text that begins with & is written in quotes")
	default:
		s.bad(at, "", "this is not YAML: %s", msg)
	}
}

// notAllowed explains a value with a colon too many: two on one line, or the
// next line is indented as if it belonged to it.
func (s *source) notAllowed(at Position, line string) {
	rest := string([]rune(line)[at.Column-1:])
	if strings.Contains(rest, ": ") || strings.HasSuffix(rest, ":") {
		s.bad(at, "", "two `key: value` on one line; write them on two lines, and a value that has a `: ` in it in quotes")
		return
	}
	for i := at.Line; i < len(s.lines); i++ {
		next := string(s.lines[i])
		text := strings.TrimLeft(next, " ")
		if text == "" || text[0] == '#' {
			continue
		}
		s.bad(Position{i + 1, len(next) - len(text) + 1}, "", "this line is indented as a part of the value of line %d; the keys of one mapping stand in one column", at.Line)
		return
	}
	s.bad(at, "", "this value is followed by something that does not belong to it")
}
