package convert

import (
	"errors"
	"path/filepath"
	"strings"
)

// block is one statement: its words, and what stands in its braces.
type block struct {
	words  []word
	in     []*block
	braces bool
}

func (b *block) name() string { return b.words[0].text }
func (b *block) at() Place    { return b.words[0].at }

// arg is a word behind the name; "" where there is none.
func (b *block) arg(i int) string {
	if i+1 < len(b.words) {
		return b.words[i+1].text
	}
	return ""
}

// args are the words behind the name.
func (b *block) args() []string {
	var all []string
	for _, w := range b.words[1:] {
		all = append(all, w.text)
	}
	return all
}

// parser makes blocks of words.
type parser struct {
	o       Options
	defined map[string]string
	notes   *[]Note
	files   int
	bytes   int
}

// read reads one file, and those that it includes.
func (p *parser) read(file string, text []byte, depth int) ([]*block, error) {
	if p.files++; p.files > maxFiles {
		return nil, wrong(Place{file, 1, 1}, "more than %d files are included; is one of them included by itself?", maxFiles)
	}
	if p.bytes += len(text); p.bytes > maxText {
		return nil, wrong(Place{file, 1, 1}, "there are more than %d MiB; this is no configuration", maxText>>20)
	}
	l := &lexer{file: file, rest: strings.ToValidUTF8(string(text), "?"), defined: p.defined}
	if err := l.scan(); err != nil {
		return nil, err
	}
	s := &stream{words: l.words}
	blocks, err := p.blocks(s, nil, depth)
	if err != nil {
		return nil, err
	}
	return blocks, nil
}

// stream is the words of one file as they are taken.
type stream struct {
	words []word
	next  int
}

// blocks takes statements until the brace that ends those of outer, or the end of
// the file.
func (p *parser) blocks(s *stream, outer *block, depth int) ([]*block, error) {
	var all []*block
	for {
		b, err := p.statement(s, outer)
		if b == nil || err != nil {
			return all, err
		}
		if opened(s) {
			if depth+1 >= maxDepth {
				return nil, wrong(b.at(), "blocks are in blocks more than %d times here", maxDepth)
			}
			b.braces = true
			if b.in, err = p.blocks(s, b, depth+1); err != nil {
				return nil, err
			}
		}
		switch name := b.name(); {
		case strings.HasPrefix(name, "@"):
			p.note(b.at(), "`%s`: lines for one configuration id only are left out; write the ones of this node without it", name)
		case strings.HasPrefix(name, "include") && len(b.words) == 2 && !b.braces:
			more, err := p.include(b, depth)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		default:
			all = append(all, b)
		}
	}
}

// statement takes the words of one line; nil at the end of what they are in.
func (p *parser) statement(s *stream, outer *block) (*block, error) {
	b := &block{}
	for s.next < len(s.words) {
		w := s.words[s.next]
		switch w.kind {
		case end:
			s.next++
			if len(b.words) > 0 {
				return b, nil
			}
		case open:
			if len(b.words) == 0 {
				return nil, wrong(w.at, "there is a `{` with nothing before it; say what the block is, as `vrrp_instance VI_1 {`")
			}
			return b, nil
		case shut:
			if len(b.words) > 0 {
				return b, nil
			}
			if outer == nil {
				return nil, wrong(w.at, "this `}` ends nothing; leave it out, or look for a block that was ended before")
			}
			s.next++
			return nil, nil //nolint:nilnil // the end of a block is no statement
		default:
			b.words = append(b.words, w)
			s.next++
		}
	}
	if outer != nil {
		return nil, wrong(outer.at(), "the block `%s` is not ended; write its `}`", outer.name())
	}
	if len(b.words) > 0 {
		return b, nil
	}
	return nil, nil //nolint:nilnil // nor is the end of a file
}

// opened takes a `{` that follows, on this line or a later one.
func opened(s *stream) bool {
	i := s.next
	for i < len(s.words) && s.words[i].kind == end {
		i++
	}
	if i == len(s.words) || s.words[i].kind != open {
		return false
	}
	s.next = i + 1
	return true
}

// include reads the files that a pattern names.
func (p *parser) include(b *block, depth int) ([]*block, error) {
	if depth+1 >= maxDepth {
		return nil, wrong(b.at(), "files include files more than %d times here; does one include itself?", maxDepth)
	}
	pattern := b.arg(0)
	if p.o.Include == nil {
		p.note(b.at(), "`include %s` is left out: no files can be read here", pattern)
		return nil, nil
	}
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(b.at().File), pattern)
	}
	files, err := p.o.Include(pattern)
	switch {
	case err != nil:
		return nil, wrong(b.at(), "`include %s`: %v", b.arg(0), err)
	case len(files) == 0:
		p.note(b.at(), "`include %s` names no file; nothing was included", b.arg(0))
	}
	var all []*block
	for _, f := range files {
		more, err := p.read(f.Name, f.Text, depth+1)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// note notes what is not carried over.
func (p *parser) note(at Place, format string, args ...any) {
	*p.notes = append(*p.notes, newNote(at, format, args...))
}

// looksLikeHAProxy recognises the other program whose files people have.
func looksLikeHAProxy(text string) bool {
	sections := 0
	for line := range strings.Lines(text) {
		first, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if line != "" && line[0] != ' ' && line[0] != '\t' && !strings.ContainsAny(line, "{}") {
			switch first {
			case "frontend", "backend", "listen", "defaults", "global":
				sections++
			}
		}
	}
	return sections >= 2
}

// errHAProxy is why haproxy.cfg is refused.
var errHAProxy = errors.New("this is a haproxy.cfg, which this version does not convert; it converts keepalived.conf: write the services by hand, docs/reference/configuration has the keys")
