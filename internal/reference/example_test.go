package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-net/holdfast/internal/config"
)

// plainText is a configuration as one comparable text, without where its parts
// stand.
func plainText(t *testing.T, c *config.Config) string {
	t.Helper()
	c.Digest = ""
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`"Pos":\{[^}]*\}`).ReplaceAllString(string(text), "")
}

func allKeys(t *testing.T) []*key {
	t.Helper()
	top, err := readKeys(root + "/internal/config")
	if err != nil {
		t.Fatal(err)
	}
	var list []*key
	for _, k := range top {
		list = append(list, k.all()...)
	}
	return list
}

// The example of every key is a file that is accepted, and it is about that key.
func TestKeyExamples(t *testing.T) {
	keys := allKeys(t)
	if len(keys) != len(config.Keys()) {
		t.Errorf("%d keys in the tree, %d in the schema", len(keys), len(config.Keys()))
	}
	for _, k := range keys {
		text := exampleFile(k)
		if !regexp.MustCompile(`\b` + k.name + `:`).MatchString(text) {
			t.Errorf("the example of %s does not have it:\n%s", k.Path, text)
		}
		if _, err := config.Parse("example.yaml", []byte(text)); err != nil {
			t.Errorf("the example of %s is refused: %v\n%s", k.Path, err, text)
		}
	}
}

// Where a page says that a key must be there, a file without it is refused; where
// it names a default, one without it is accepted.
func TestRequiredKeys(t *testing.T) {
	for _, k := range allKeys(t) {
		if !k.Required {
			continue
		}
		// The whole key goes, with what is nested in it.
		lines := strings.SplitAfter(exampleFile(k), "\n")
		var without strings.Builder
		gone, depth, before := false, -1, 0 // keys of the same name that it stands in
		for up := k.parent; up != nil; up = up.parent {
			if up.name == k.name {
				before++
			}
		}
		for _, line := range lines {
			trimmed := strings.TrimLeft(line, " -")
			at := len(line) - len(trimmed)
			switch {
			case depth < 0 && !gone && before > 0 && strings.HasPrefix(trimmed, k.name+":"):
				before--
			case depth < 0 && !gone && strings.HasPrefix(trimmed, k.name+":"):
				gone, depth = true, at
				if strings.Contains(line[:at], "-") { // the first key of an item: the item stays
					without.WriteString(line[:at] + "x-nothing: 1\n")
				} else {
					without.WriteString(line[:at] + "# gone\n")
				}
				continue
			case depth >= 0 && at > depth:
				continue
			}
			depth = -1
			without.WriteString(line)
		}
		text := strings.ReplaceAll(without.String(), "- x-nothing: 1\n    ", "- ")
		text = withoutEmptyMappings(text)
		_, err := config.Parse("example.yaml", []byte(text))
		if err == nil {
			t.Errorf("%s must be there, says its page, and a file without it is accepted:\n%s", k.Path, text)
		} else if !strings.Contains(err.Error(), "`"+k.name+"`") {
			t.Errorf("a file without %s is refused for something else: %v\n%s", k.Path, err, text)
		}
	}
}

// withoutEmptyMappings writes {} for a mapping whose only key is a comment now.
func withoutEmptyMappings(text string) string {
	lines := strings.Split(text, "\n")
	for i := range len(lines) - 1 {
		comment, after := lines[i+1], ""
		if i+2 < len(lines) {
			after = lines[i+2]
		}
		by := len(comment) - len(strings.TrimLeft(comment, " "))
		if strings.HasSuffix(lines[i], ":") && strings.HasPrefix(comment[by:], "#") && len(after)-len(strings.TrimLeft(after, " ")) < by {
			lines[i] += " {}"
		}
	}
	return strings.Join(lines, "\n")
}

// What a key's page says of its default is what holds: a file that writes the
// default is the same as one that does not.
func TestDefaults(t *testing.T) {
	compared := 0
	for _, k := range allKeys(t) {
		if k.Default == "" || len(k.children) > 0 {
			continue
		}
		k.note.example = `"` + k.Default + `"`
		if regexp.MustCompile(`^(\d+|true|false)$`).MatchString(k.Default) && k.Type != "mode" {
			k.note.example = k.Default
		}
		with, err := config.Parse("x", []byte(exampleFile(k)))
		if err != nil {
			t.Errorf("the default of %s is refused: %v\n%s", k.Path, err, exampleFile(k))
			continue
		}
		line := regexp.MustCompile(`(?m)^[ -]*` + k.name + `: .*\n`)
		text := line.ReplaceAllStringFunc(exampleFile(k), func(l string) string {
			return strings.Repeat(" ", len(l)-len(strings.TrimLeft(l, " "))) + "# " + strings.TrimLeft(l, " ")
		})
		text = withoutEmptyMappings(text)
		without, err := config.Parse("x", []byte(text))
		if err != nil {
			t.Errorf("a file without %s is refused: %v\n%s", k.Path, err, text)
			continue
		}
		compared++
		if a, b := plainText(t, with), plainText(t, without); a != b {
			t.Errorf("%s: %s is not what holds without it:\n%s\n%s", k.Path, k.Default, a, b)
		}
	}
	if compared < 15 {
		t.Errorf("only %d defaults were compared", compared)
	}
}

// Every configuration in the guide and in packaging is accepted.
func TestConfigurationsOfThePages(t *testing.T) {
	const services = "\nservices:\n  - name: web\n    listen: :8080\n    backends:\n      - address: 10.0.0.21:80\n"
	accepted := func(where, text string) {
		if !strings.Contains(text, "services:") {
			text += services
		}
		if _, err := config.Parse(where, []byte(text)); err != nil {
			t.Errorf("%s: %v\n%s", where, err, text)
		}
	}
	found, err := filepath.Glob(root + "/docs/guide/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, page := range found {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "scrape_configs:") {
				continue // Prometheus's own
			}
			blocks++
			accepted(page, m[1])
		}
	}
	if blocks == 0 {
		t.Error("the guide has no configuration")
	}
	example := read(t, "packaging/holdfast.yaml")
	accepted("packaging/holdfast.yaml", example)
	accepted("packaging/examples/postgresql/holdfast.yaml", read(t, "packaging/examples/postgresql/holdfast.yaml"))

	// What is commented out for a pair is right too.
	from, to := strings.Index(example, "# pair:"), strings.Index(example, "\nservices:")
	if from < 0 || to < from {
		t.Fatal("packaging/holdfast.yaml has no pair")
	}
	pair := regexp.MustCompile(`(?m)^# `).ReplaceAllString(example[from:to], "")
	c, err := config.Parse("packaging/holdfast.yaml", []byte(pair))
	if err != nil {
		t.Errorf("the pair of packaging/holdfast.yaml: %v\n%s", err, pair)
	} else if c.Pair == nil || len(c.Addresses) != 1 || c.Addresses[0].VRRP == nil {
		t.Errorf("the pair of packaging/holdfast.yaml is not whole: %+v", c)
	}

	_, inner, ok := strings.Cut(read(t, "packaging/container/kubernetes.yaml"), "  holdfast.yaml: |\n")
	inner, _, end := strings.Cut(inner, "\n---\n")
	if !ok || !end {
		t.Fatal("kubernetes.yaml has no configuration")
	}
	var file strings.Builder
	for line := range strings.Lines(inner) {
		file.WriteString(strings.TrimPrefix(line, "    "))
	}
	accepted("packaging/container/kubernetes.yaml", file.String())
}
