package config

import (
	"encoding"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/holdfast-net/holdfast/balance"
)

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
	cmpopts.IgnoreUnexported(Config{}),
}

func parse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Parse("holdfast.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	return c
}

func mustListen(s string) Address {
	a, err := ParseListen(s)
	if err != nil {
		panic(err)
	}
	return a
}

func mustBackend(s string) Address {
	a, err := ParseBackendAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

// TestGood parses what is right, with all kinds of line ends, and again when it
// is written out as what it was understood as.
func TestGood(t *testing.T) {
	for _, f := range append(files(t, "testdata/good/*.yaml"), "../../packaging/holdfast.yaml") {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			c := parse(t, string(text))
			windows := parse(t, strings.ReplaceAll(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n", "\r\n"))
			same(t, c, windows)
			if d := cmp.Diff(c.places.at, windows.places.at); d != "" {
				t.Errorf("positions (-file +windows):\n%s", d)
			}
			same(t, c, parse(t, render(c)))
		})
	}
}

// same compares two configurations, but for the digest.
func same(t testing.TB, a, b *Config) {
	t.Helper()
	if d := cmp.Diff(a, b, compare, cmpopts.IgnoreFields(Config{}, "Digest")); d != "" {
		t.Errorf("-first +second:\n%s", d)
	}
}

// render writes a configuration as YAML, by the schema: every key with its value.
func render(c *Config) string {
	var b strings.Builder
	b.WriteString(renderValue(reflect.ValueOf(c).Elem()))
	b.WriteByte('\n')
	return b.String()
}

func renderValue(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
	case netip.Prefix:
		return quoteYAML(x.String())
	case encoding.TextMarshaler:
		text, err := x.MarshalText()
		if err != nil {
			panic(err)
		}
		return quoteYAML(string(text))
	}
	var parts []string
	switch v.Kind() {
	case reflect.Pointer:
		return renderValue(v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			parts = append(parts, renderValue(v.Index(i)))
		}
		return "[" + strings.Join(parts, ",\n") + "]"
	case reflect.Struct:
		for _, f := range fields(v.Type()) {
			value := v.FieldByIndex(f.index)
			if value.Kind() == reflect.Pointer && value.IsNil() || !f.required() && value.IsZero() && f.Tag.Get("default") == "" {
				continue
			}
			if h, ok := v.Interface().(Health); ok && h.None != nil && slices.Contains(onlyWithCheck, f.name) {
				continue
			}
			parts = append(parts, f.name+": "+renderValue(value))
		}
		return "{" + strings.Join(parts, ",\n") + "}"
	case reflect.String:
		return quoteYAML(v.String())
	default:
		return fmt.Sprint(v.Interface())
	}
}

func quoteYAML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case control(c) || c == '\uFEFF' || c == '\t' || c == '\u2028' || c == '\u2029' || c == '\uFFFD':
			fmt.Fprintf(&b, `\U%08x`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func TestEverything(t *testing.T) {
	text, err := os.ReadFile("testdata/good/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got := parse(t, string(text))
	prefix := netip.MustParsePrefix
	plain := parse(t, "services: [{name: x, listen: :1, backends: []}]").Services[0]
	service := func(name string, set func(*Service)) Service {
		s := plain
		s.Name, s.Listen = name, nil
		set(&s)
		return s
	}
	check := func(h Health) Health {
		h.Interval, h.Timeout, h.Fall, h.Rise = time.Second, time.Second, 3, 2
		return h
	}
	want := &Config{
		Node: "lb-2.example:x", File: "holdfast.yaml", Digest: got.Digest,
		Services: []Service{
			{
				Name: "web", Listen: []Address{mustListen(":8080"), mustListen("[fe80::1%eth0]:8081"), mustListen("unix:/run/web.sock")},
				Engine: "relay", Balance: balance.SourceHash,
				Backends: []Backend{
					{Name: "w1", Address: mustBackend("10.0.0.1:80"), MaxConnections: 200, Backup: true},
					{Name: "[2001:db8::1]:80", Address: mustBackend("[2001:db8::1]:80"), Weight: 65535},
					{Name: "[w3]", Address: mustBackend("backend.example.net:80"), Weight: 100},
				},
				Health: Health{
					HTTP: &HTTPCheck{
						Path: "/healthz?deep=1", Status: "200-299, 404", Host: "www.example.net",
						Target: Target{Port: 8008, Address: "127.0.0.1", TLS: &TLS{ServerName: "www.example.net"}},
					},
					Interval: 100 * time.Millisecond, Timeout: 90 * time.Second, Fall: 1, Rise: 1000,
				},
				OnBackendLost: "drain", Drain: Drain{Timeout: time.Hour, Idle: 30 * time.Second},
				ConnectTimeout: 1500 * time.Millisecond, IdleTimeout: 8760 * time.Hour,
				Allow: []netip.Prefix{prefix("10.0.0.0/8"), prefix("192.0.2.7/32"), prefix("2001:db8::/32")},
			},
			service("smtp", func(s *Service) {
				s.Listen = []Address{mustListen("127.0.0.1:25"), mustListen("[::1]:25")}
				s.Backends = []Backend{{Name: "10.0.0.1:25", Address: mustBackend("10.0.0.1:25"), Weight: 100}}
				s.Health = check(Health{Exchange: &ExchangeCheck{Expect: "220 ", Target: Target{TLS: &TLS{Insecure: true}}}})
			}),
			service("pg", func(s *Service) {
				s.Listen = []Address{mustListen("unix:/run/.s.PGSQL.5432")}
				s.Health = check(Health{Command: &CommandCheck{Argv: []string{"check", "-U", "it's"}, User: "postgres"}})
			}),
			service("local", func(s *Service) {
				s.Listen = []Address{mustListen("127.0.0.1:99")}
				s.Backends = []Backend{{Name: "unix:/run/a.sock", Address: mustBackend("unix:/run/a.sock"), Weight: 100}}
				s.Health = check(Health{TCP: &TCPCheck{Target{Address: "unix:/run/b.sock", TLS: &TLS{ServerName: "x"}}}})
			}),
			service("open", func(s *Service) {
				s.Listen = []Address{mustListen("127.0.0.1:98")}
				s.Backends = []Backend{{Name: "unix:/run/a.sock", Address: mustBackend("unix:/run/a.sock"), Weight: 100}}
				s.Health = check(Health{None: &struct{}{}})
			}),
		},
		Admin:       Admin{Socket: "/run/h/h.sock", Mode: 0o600, Group: "adm"},
		Directories: Directories{Runtime: "/run/h", BPF: "/sys/fs/bpf/h"},
		Metrics:     Metrics{Listen: mustListen("[::1]:9420")},
		Log:         Log{Level: "debug", Format: "json"},
	}
	if d := cmp.Diff(want, got, compare); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestDefaults(t *testing.T) {
	got := parse(t, "services: [{name: web, listen: :80, backends: [{address: 10.0.0.1:80}]}]\n")
	want := &Config{
		File: "holdfast.yaml", Digest: "62ef3f1e9d9d",
		Services: []Service{{
			Name: "web", Listen: []Address{{Port: 80}}, Engine: "auto",
			Backends: []Backend{{Name: "10.0.0.1:80", Address: mustBackend("10.0.0.1:80"), Weight: 100}},
			Health:   Health{TCP: &TCPCheck{}, Interval: time.Second, Timeout: time.Second, Fall: 3, Rise: 2}, OnBackendLost: "reset",
			ConnectTimeout: 3 * time.Second, DeadPeerTimeout: 15 * time.Second,
		}},
		Admin:       Admin{Socket: "/run/holdfast/holdfast.sock", Mode: 0o660},
		Directories: Directories{Runtime: "/run/holdfast", BPF: "/sys/fs/bpf/holdfast"},
		Log:         Log{Level: "info", Format: "text"},
	}
	want.Digest = got.Digest
	if len(got.Digest) != 12 || got.Digest != parse(t, "services: [{name: web, listen: :80, backends: [{address: 10.0.0.1:80}]}]\n").Digest ||
		got.Digest == parse(t, "services: [{name: web, listen: :80, backends: [{address: 10.0.0.1:80}]}]").Digest {
		t.Errorf("digest %q", got.Digest)
	}
	if d := cmp.Diff(want, got, compare); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestAliases(t *testing.T) {
	text, err := os.ReadFile("testdata/good/aliases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, string(text))
	one, two, three := c.Services[0], c.Services[1], c.Services[2]
	if d := cmp.Diff(one.Backends, two.Backends, compare); d != "" || len(one.Backends) != 2 {
		t.Errorf("backends of two: %s", d)
	}
	if two.Health.HTTP == nil || two.Health.Interval != 500*time.Millisecond || two.Drain.Timeout != 0 {
		t.Errorf("two: %+v", two)
	}
	if three.Name != "three" || three.Health.HTTP == nil || three.Health.Interval != 2*time.Second || three.Drain.Timeout != 30*time.Second || len(three.Backends) != 2 {
		t.Errorf("three: %+v", three)
	}
}

// TestSchema holds the schema together: every key has a comment, a type with a
// rule, and a default and bounds that can be read.
func TestSchema(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	commented := make(map[string]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					commented[spec.Name.Name+"."+name.Name] = f.Doc.Text() != ""
				}
			}
		}
		return true
	})
	seen := make(map[string]bool)
	for _, k := range Keys() {
		if seen[k.Path] {
			t.Errorf("%s is listed twice", k.Path)
		}
		seen[k.Path] = true
		if !commented[k.Struct+"."+k.Field] {
			t.Errorf("%s (%s.%s) has no comment", k.Path, k.Struct, k.Field)
		}
		mapping := strings.HasSuffix(k.Type, "mapping") || strings.HasPrefix(k.Type, "list of")
		if k.Required && (k.Default != "" || k.Unset != "") || !k.Required && !mapping && k.Default == "" && k.Unset == "" {
			t.Errorf("%s: required %v, default %q, unset %q", k.Path, k.Required, k.Default, k.Unset)
		}
		if (k.Required || k.Without != "") && missing[k.Struct+"."+k.Field] == "" {
			t.Errorf("%s: nothing says how to add it when it is missing", k.Path)
		}
		if k.Type == "one of" && len(k.Enum) < 2 {
			t.Errorf("%s is one of %v", k.Path, k.Enum)
		}
		for _, bound := range []string{k.Min, k.Max} {
			var err error
			switch k.Type {
			case "duration":
				if bound != "" || bound == k.Max {
					_, err = time.ParseDuration(bound)
				}
			case "whole number":
				_, err = number(bound)
			default:
				if bound != "" {
					err = errors.New("it has no order")
				}
			}
			if err != nil && (bound != "" || k.Type == "whole number" || bound == k.Max) {
				t.Errorf("%s: bound %q: %v", k.Path, bound, err)
			}
		}
	}
	for _, p := range []string{"node", "services", "services[].backends[].weight", "services[].health.http.tls.insecure", "admin.mode"} {
		if !seen[p] {
			t.Errorf("%s is not listed", p)
		}
	}

	// Every default is what Parse fills in, and may be written into a file.
	var defaults func(path string, v reflect.Value)
	defaults = func(path string, v reflect.Value) {
		for _, f := range fields(v.Type()) {
			to := v.FieldByIndex(f.index)
			p := join(path, f.name)
			if text, ok := f.Tag.Lookup("default"); ok {
				want := reflect.New(f.Type).Elem()
				if err := setScalar(want, &f, text); err != nil {
					t.Errorf("the default of %s: %v", p, err)
				}
				if !want.Equal(to) {
					t.Errorf("%s: Parse fills in %v, the tag says %v", p, to, want)
				}
			} else if to.IsZero() == false && f.Type.Kind() != reflect.Struct && to.Kind() != reflect.Pointer && to.Kind() != reflect.Slice && f.Tag.Get("unset") == "" && !f.required() {
				t.Errorf("%s is %v without a default", p, to)
			}
			switch {
			case f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[Address]():
				defaults(p, to)
			case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct && to.Len() > 0 && f.Type.Elem().Name() != "Address":
				defaults(p+"[]", to.Index(0))
			case f.Type.Kind() == reflect.Pointer && !to.IsNil():
				defaults(p, to.Elem())
			}
		}
	}
	for _, check := range []string{"tcp: {tls: {}}", "http: {tls: {}}", "exchange: {expect: x, tls: {}}", "command: {argv: [x]}", "none: {}"} {
		defaults("", reflect.ValueOf(parse(t, "services: [{name: x, listen: :1, backends: [{address: 10.0.0.1:1}], health: {"+check+"}}]")).Elem())
	}
}

// TestHints holds the guesses against the schema: what they name exists.
func TestHints(t *testing.T) {
	structs := map[string][]field{}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		structs[t.Name()] = fields(t)
		for _, f := range fields(t) {
			if inner, _ := structOf(f.Type); inner != nil {
				walk(inner)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	has := func(list []field, name string) bool {
		return slices.ContainsFunc(list, func(f field) bool { return f.name == name })
	}
	for s, words := range synonyms {
		for from, to := range words {
			if !has(structs[s], to) || has(structs[s], from) {
				t.Errorf("%s: %s -> %s", s, from, to)
			}
		}
	}
	for s, keys := range later {
		for _, k := range keys {
			if structs[s] == nil || has(structs[s], k) {
				t.Errorf("%s: %s", s, k)
			}
		}
	}
	for name := range missing {
		s, f, _ := strings.Cut(name, ".")
		if !slices.ContainsFunc(structs[s], func(g field) bool { return g.Name == f && (g.required() || g.Tag.Get("without") != "") }) {
			t.Errorf("%s is not required, and cannot be missing", name)
		}
	}
	for name := range whyMin {
		s, f, _ := strings.Cut(name, ".")
		if !slices.ContainsFunc(structs[s], func(g field) bool { return g.Name == f && g.Tag.Get("min") != "" }) {
			t.Errorf("%s has no least value", name)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "holdfast.yaml")
	check := func(want string) {
		t.Helper()
		c, err := Load(path)
		if c != nil || err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), path) == 0 {
			t.Errorf("Load gave %v, %v; want an error with %q", c, err, want)
		}
	}
	check("write one, the least is `services: [")
	parse(t, strings.Trim(least, "`"))
	if err := os.WriteFile(path, []byte("services: [{name: web, listen: :80, backends: []}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	if c, err := Load(path); err != nil || c.Node != host || c.File != path {
		t.Errorf("Load gave %+v, %v", c, err)
	}
	if err := os.WriteFile(path, []byte("services: []"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(path + ":1:11: services: there is no service")
	if _, err := Load(path); !errors.As(err, new(Errors)) || !errors.As(err, new(*Error)) {
		t.Errorf("the error is a %T", err)
	}
	if err := os.WriteFile(path, make([]byte, MaxFileSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	check("larger than 4 MiB")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	check("is a directory; name the file in it")
	path = filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	check("the file is empty") // nobody writes into it
	path = filepath.Join(dir, "private")
	if err := os.WriteFile(path, nil, 0o000); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		t.Log("root reads everything: the missing permission is not tried")
		return
	}
	check("permission denied; run this as root")
}

// TestManyMistakes lists no more than a person can want.
func TestManyMistakes(t *testing.T) {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range 500 {
		fmt.Fprintf(&b, "  - {name: s%d, listen: :80, backends: [], weight: %d}\n", i, i)
	}
	_, err := Parse("holdfast.yaml", []byte(b.String()))
	errs, ok := errors.AsType[Errors](err)
	if !ok || len(errs) != MaxErrors || !strings.Contains(errs[MaxErrors-1].What, "more than 100 mistakes") {
		t.Errorf("%d errors; the last one: %v", len(errs), errs[len(errs)-1])
	}
	checkErrors(t, []byte(b.String()), errs)
}

// TestHarmless gives Parse what the YAML library would need minutes, or more stack
// than there is, for. It hangs, or dies, where a bound is missing.
func TestHarmless(t *testing.T) {
	const n = 1 << 16
	for name, c := range map[string]struct{ want, text string }{
		"open brackets":    {"this line has", "a: " + strings.Repeat("[", n)},
		"open braces":      {"this line has", strings.Repeat("{a: ", n)},
		"dashes":           {"this line has", strings.Repeat("- ", n)},
		"dashes in lines":  {"more than 256 keys and entries", strings.Repeat("-\n ", n)},
		"dashes below":     {"more than 256 keys and entries", strings.Repeat("-\n", n)},
		"words in braces":  {"more than 256 keys and entries", "a: {" + strings.Repeat("\na,", n/8) + "}"},
		"empty in braces":  {"more than 256 keys and entries", "a: {" + strings.Repeat("\na:,", n/8) + "}"},
		"empty in a list":  {"more than 256 keys and entries", strings.Repeat("- a:\n", n/8)},
		"question marks":   {"this line has", strings.Repeat("? ", n)},
		"tags":             {"this line has", "a: " + strings.Repeat("!a ", n)},
		"anchors":          {"", "a: " + strings.Repeat("&a ", n/1024)},
		"anchors in lines": {"begins with &", strings.Repeat("&a\n", n/16)},
		"aliases":          {"", "a: " + strings.Repeat("*a ", n/1024)},
		"tabs in quotes":   {"there is a tab", strings.Repeat("a: \""+strings.Repeat("\t", 4000)+"\"\n", 200)},
		"keys":             {"more than 256 keys in one mapping", strings.Repeat("a: b\n", n/8)},
		"keys in a list":   {"more than 256 keys in one mapping", "- " + strings.Repeat("a: b\n  ", n/8)},
		"keys in braces":   {"more than 256 keys", "services: [{" + strings.Repeat("\na: b,", n/16) + "}]"},
		"networks": {"is here twice", "services: [{name: a, listen: :1, backends: [], allow: [" + func() string {
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, "10.%d.%d.0/25,\n", i>>8, i&255)
			}
			return b.String()
		}() + "10.0.0.0/25]}]"},
		"colons":           {"this line has", strings.Repeat(": ", n)},
		"block text":       {"more than 500 empty lines", "a: |\n  x" + strings.Repeat("\n", n)},
		"block texts":      {"a list where a mapping belongs", strings.Repeat("- |\n  x\n\n\n\n\n\n\n\n  y\n", n/64)},
		"block text lines": {"longer than 16384 bytes", "a: |\n" + strings.Repeat("  x\n\n", n/4)},
		"plain text lines": {"unknown key", "a: x\n" + strings.Repeat("  x\n\n", n/8)},
		"text lines":       {"closing quote missing", "a: \"x\n" + strings.Repeat("  x\n\n", n/8) + "\""},
		"comments":         {"nothing in the file but comments", strings.Repeat("# x\n", n/4)},
		"documents":        {"nothing in the file but comments", strings.Repeat("---\n", n/4)},
		"documents filled": {"more than 256 keys in one mapping", strings.Repeat("---\na: b\n", n/16)},
		"spaces":           {"this line has", "a: b" + strings.Repeat(" ", n)},
		"space lines":      {"more than 500 empty lines", "a: b\n" + strings.Repeat(strings.Repeat(" ", 400)+"\n", 600)},
		"doubling": {"a list where a mapping belongs", "services:\n- &a [1, 1]\n" + func() (s string) {
			for c := 'b'; c <= 'z'; c++ {
				s += fmt.Sprintf("- &%c [*%c, *%c]\n", c, c-1, c-1)
			}
			return s
		}()},
		"merged": {"", "services:\n- &a {a: b}\n" + func() (s string) {
			for c := 'b'; c <= 'z'; c++ {
				s += fmt.Sprintf("- &%c {<<: [*%c, *%c, *%c], %c: 1}\n", c, c-1, c-1, c-1, c)
			}
			return s
		}()},
		"groups":          {"there may be 255 groups", "addresses:\n" + strings.Repeat("- {name: a, interface: b, addresses: [10.0.0.1/24]}\n", 5000)},
		"owned and peers": {"in line 1 already", "addresses: [{name: a, interface: b, addresses: [" + strings.Repeat("10.0.0.1/24,\n", n/2) + "], vrrp: {id: 1, peers: [" + strings.Repeat("10.0.0.2,\n", n/2) + "]}}]"},
		"same services":   {"", "services:\n- &a {name: a, listen: &l [" + strings.Repeat(":1,\n", 1000) + "], backends: &b [" + strings.Repeat("{address: *l},\n", 1000) + "]}\n" + strings.Repeat("- *a\n", 20000)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("holdfast.yaml", []byte(c.text))
			errs, ok := errors.AsType[Errors](err)
			if !ok {
				t.Fatalf("Parse gave %v", err)
			}
			if !strings.Contains(errs[0].What, c.want) {
				t.Errorf("%v; want %q", errs[0], c.want)
			}
			checkErrors(t, []byte(c.text), errs)
		})
	}
	t.Run("too many backends", func(t *testing.T) {
		const head = "services:\n  - name: x\n    listen: :1\n    backends:\n      - &b {address: 10.0.0.1:1}\n"
		_, err := Parse("holdfast.yaml", []byte(head+strings.Repeat("      - *b\n", balance.MaxBackends)))
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf(":%d:9: services[0].backends[65535]: a service has at most 65535 backends", balance.MaxBackends+5)) {
			t.Errorf("Parse gave %v", err)
		}
	})
	t.Run("many backends", func(t *testing.T) {
		var b strings.Builder
		b.WriteString("services:\n  - name: x\n    listen: :1\n    backends:\n")
		for i := range 5000 {
			fmt.Fprintf(&b, "      - {name: b%d, address: 10.0.%d.%d:1}\n", i, i>>8, i&255)
		}
		if c := parse(t, b.String()); len(c.Services[0].Backends) != 5000 {
			t.Errorf("%d backends", len(c.Services[0].Backends))
		}
	})
}
