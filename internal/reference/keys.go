package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"

	"github.com/holdfast-net/holdfast/internal/config"
)

// A key is one key of the configuration.
type key struct {
	config.Key          // Path is that of a list of mappings too: services, not services[]
	name       string   // the last part of the path
	doc        []string // the field's comment, in paragraphs
	list       bool     // a list of mappings
	children   []*key
	parent     *key
	note       note
}

// page is the name of the key's page.
func (k *key) page() string { return strings.ReplaceAll(k.Path, "[]", "") + ".md" }

// all returns k and everything below it, in the order of the file.
func (k *key) all() []*key {
	keys := []*key{k}
	for _, c := range k.children {
		keys = append(keys, c.all()...)
	}
	return keys
}

// readKeys reads the schema, with the comments from the source in dir.
func readKeys(dir string) (top []*key, err error) {
	comments, err := fieldComments(dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	byPath := make(map[string]*key)
	noted := make(map[string]bool)
	for _, one := range config.Keys() {
		k := &key{Key: one, name: one.Path[strings.LastIndex(one.Path, ".")+1:]}
		byPath[k.Path] = k
		if parent, _, inside := cutLast(k.Path, "."); inside {
			k.parent = byPath[strings.TrimSuffix(parent, "[]")]
			k.parent.list = strings.HasSuffix(parent, "[]")
			k.parent.children = append(k.parent.children, k)
		} else {
			top = append(top, k)
		}

		text := strings.TrimSpace(comments[k.Struct+"."+k.Field])
		if text == "" {
			errs = append(errs, fmt.Errorf("%s (%s.%s) has no comment", k.Path, k.Struct, k.Field))
		}
		for paragraph := range strings.SplitSeq(text, "\n\n") {
			k.doc = append(k.doc, strings.Join(strings.Fields(paragraph), " "))
		}

		if _, ok := kinds[k.Type]; !ok {
			errs = append(errs, fmt.Errorf("%s is a %q, which has no words here", k.Path, k.Type))
		}
		n, ok := noteOf(k.Path)
		if !ok {
			errs = append(errs, fmt.Errorf("%s has no note (notes.go): what a reload does with it, and an example", k.Path))
		}
		if n.reload == "" || n.example == "" {
			errs = append(errs, fmt.Errorf("the note of %s (notes.go) says too little", k.Path))
		}
		if k.standard(n) == "" {
			errs = append(errs, fmt.Errorf("%s does not say what holds without it", k.Path))
		}
		noted[k.Path] = true
		k.note = n
	}
	for path := range notes {
		if !noted[path] {
			errs = append(errs, fmt.Errorf("notes.go has a note about %s, which is no key", path))
		}
	}
	return top, errors.Join(errs...)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// fieldComments returns the comments of all fields as TYPE.FIELD.
func fieldComments(dir string) (map[string]string, error) {
	fset := token.NewFileSet()
	//nolint:staticcheck // without build tags the directory is the package
	parsed, err := parser.ParseDir(fset, dir, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	pkg := parsed["config"]
	if pkg == nil {
		return nil, fmt.Errorf("%s holds no package config", dir)
	}
	comments := make(map[string]string)
	for _, f := range pkg.Files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				t, ok := s.(*ast.TypeSpec)
				if !ok {
					continue
				}
				st, ok := t.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, field := range st.Fields.List {
					for _, n := range field.Names {
						comments[t.Name.Name+"."+n.Name] = field.Doc.Text()
					}
				}
			}
		}
	}
	return comments, nil
}

// kinds are the types of keys, in more words than the schema has.
var kinds = map[string]string{
	"address":                         "an address",
	"address, or list of addresses":   "an address, or a list of them",
	"IP address":                      "an IP address",
	"duration":                        "a duration: a number with its unit, as `100ms`, `2s`, `5m` or `1h30m`",
	"list of addresses with a length": "a list of addresses, each with the length of its network",
	"list of IP addresses":            "a list of IP addresses",
	"list of mappings":                "a list of mappings",
	"list of networks":                "a list of networks, or of single addresses",
	"list of texts":                   "a list of texts",
	"mapping":                         "a mapping",
	"mode":                            "permission bits in octal, in quotes",
	"one of":                          "one of the words below",
	"text":                            "a text",
	"true or false":                   "`true` or `false`",
	"whole number":                    "a whole number",
}

func (k *key) kind() string { return kinds[k.Type] }

// bounds says in words which values a key takes.
func (k *key) bounds() string {
	var s string
	switch {
	case len(k.Enum) > 0:
		for i, v := range k.Enum {
			if i > 0 {
				s += ", "
			}
			s += code(v)
		}
	case k.Min != "" && k.Max != "":
		s = "from " + code(k.Min) + " to " + code(k.Max)
	case k.Min != "":
		s = "at least " + code(k.Min)
	case k.Max != "":
		s = "at most " + code(k.Max)
	}
	switch {
	case k.Zero == "":
	case k.Min == "0":
		s += "; `0` is: " + k.Zero
	case k.Type == "duration":
		s += ", or `0s`: " + k.Zero
	default:
		s += ", or `0`: " + k.Zero
	}
	return s
}

// standard says in words what holds without the key.
func (k *key) standard(n note) string {
	switch {
	case k.Required:
		return "none: it must be there"
	case k.Without != "":
		return "none: it must be there, unless " + code(k.Without) + " is"
	case n.without != "":
		return n.without
	case k.Unset != "":
		return k.Unset
	case k.Default != "":
		return code(k.Default)
	}
	return ""
}
