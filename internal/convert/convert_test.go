package convert

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-net/holdfast/internal/config"
)

var update = flag.Bool("update", false, "write what is made now beside testdata/*.conf")

// include reads files as the command does.
func include(pattern string) ([]File, error) {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var all []File
	for _, n := range names {
		text, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		all = append(all, File{Name: n, Text: text})
	}
	return all, nil
}

// TestFiles holds what becomes of whole files against what is beside them: the
// configuration, and what is said about it.
func TestFiles(t *testing.T) {
	list, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(list) < 4 {
		t.Fatalf("files %v, %v", list, err)
	}
	for _, f := range list {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Keepalived(f, text, Options{Include: include})
			if err != nil {
				t.Fatal(err)
			}
			if r.Check != nil {
				t.Errorf("the result is not valid: %v\n%s", r.Check, r.YAML)
			}
			var notes strings.Builder
			for _, n := range r.Notes {
				notes.WriteString(n.String() + "\n")
				if !strings.Contains(string(r.YAML), "# "+n.String()+"\n") {
					t.Errorf("the YAML does not have the note %s", n)
				}
			}
			base := strings.TrimSuffix(f, ".conf")
			for name, got := range map[string]string{base + ".yaml": string(r.YAML), base + ".notes": notes.String()} {
				if *update {
					if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), got); d != "" {
					t.Errorf("%s (-want +got):\n%s", name, d)
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a {\n b\n":                           "k.conf:1:1: the block `a` is not ended; write its `}`",
		"a\n}\n":                              "k.conf:2:1: this `}` ends nothing; leave it out, or look for a block that was ended before",
		"  {":                                 "k.conf:1:3: there is a `{` with nothing before it; say what the block is, as `vrrp_instance VI_1 {`",
		"a \"b\nc\"":                          "k.conf:1:3: the closing quote is missing on this line",
		"é \"":                                "k.conf:1:3: the closing quote is missing on this line",
		strings.Repeat("a {\n", 30):           "k.conf:20:1: blocks are in blocks more than 20 times here",
		strings.Repeat("a ", maxWords+10):     "k.conf:1:524290: there are more than 262144 words; this is no configuration",
		"x " + strings.Repeat("y", maxWord+1): "k.conf:1:3: this word has more than 16384 bytes; is a quote missing?",
		"include k.conf":                      "k.conf:1:1: files include files more than 20 times here; does one include itself?",
		"include other":                       "k.conf:1:1: `include other`: no such file",
		strings.Repeat(" ", maxText+1):        "k.conf:1:1: there are more than 4 MiB; this is no configuration",
	} {
		// A file that includes itself does so in every depth.
		o := Options{Include: func(pattern string) ([]File, error) {
			if pattern != "k.conf" {
				return nil, errors.New("no such file")
			}
			return []File{{Name: "k.conf", Text: []byte("include k.conf")}}, nil
		}}
		_, err := Keepalived("k.conf", []byte(text), o)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Error() != want {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
}

// TestNothing says why there is nothing to check.
func TestNothing(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "global_defs { router_id a }", "vrrp_instance a { }"} {
		r, err := Keepalived("k.conf", []byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if errs, ok := errors.AsType[config.Errors](r.Check); !ok || len(errs) == 0 {
			t.Errorf("%q became a valid file:\n%s", text, r.YAML)
		}
	}
}

func TestHAProxy(t *testing.T) {
	_, err := Keepalived("haproxy.cfg", []byte("global\n  daemon\ndefaults\n  mode tcp\nfrontend f\n  bind :80\n"), Options{})
	if !errors.Is(err, errHAProxy) || !strings.HasPrefix(err.Error(), "haproxy.cfg: this is a haproxy.cfg") {
		t.Errorf("the error is %v", err)
	}
}

func TestSplit(t *testing.T) {
	for text, want := range map[string][]string{
		"/bin/a":              {"/bin/a"},
		"/bin/a b  c":         {"/bin/a", "b", "c"},
		"/bin/a 'b c' \"d\"":  {"/bin/a", "b c", "d"},
		`/bin/a b\ c '\' ""`:  {"/bin/a", "b c", `\`, ""},
		"/bin/a \t 'x'y\"z\"": {"/bin/a", "xyz"},
	} {
		got, err := split(text)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v, %s", text, err, d)
		}
	}
	if _, err := split("a 'b"); err == nil {
		t.Error("a quote that is not closed is closed")
	}
}

// FuzzKeepalived holds for every text: it ends soon and does not panic; an error
// has a place in the text; and what is made is a valid configuration, unless
// there was nothing to make one of.
func FuzzKeepalived(f *testing.F) {
	names, err := filepath.Glob("testdata/*.conf")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		text, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	for _, text := range []string{
		"a {", "}", "$a=$a$a\n$a", "\\", "a\\", "@x y", "include *", "a \"b\\\"c\"", "{", "vrrp_instance a { interface lo\nvirtual_router_id 1\nvirtual_ipaddress { 127.0.0.1 } }",
		"virtual_server ::1 1 { real_server ::1 1 { HTTP_GET { url { path / } } } }", "vrrp_instance a { interface b\nvirtual_router_id 1\nadvert_int 255\nvirtual_ipaddress { 10.0.0.0/24 } }",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 8<<10 {
			return
		}
		start := time.Now()
		r, err := Keepalived("k.conf", []byte(text), Options{Include: func(string) ([]File, error) { return []File{{Name: "i.conf", Text: []byte(text)}}, nil }})
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("it took %v", d)
		}
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok && !errors.Is(err, errHAProxy) {
				t.Errorf("the error is a %T: %v", err, err)
			} else if ok && (e.Line < 1 || e.Column < 1 || e.What == "" || strings.Contains(e.What, "\n")) {
				t.Errorf("the error is %+v", e)
			}
			return
		}
		for _, n := range r.Notes {
			if n.Line < 1 || n.Column < 1 || strings.ContainsAny(n.String(), "\n\x00") {
				t.Errorf("the note is %+v", n)
			}
		}
		if r.Check != nil && strings.Contains(string(r.YAML), "\n  - ") {
			t.Errorf("the result is not valid: %v\n%s", r.Check, r.YAML)
		}
	})
}
