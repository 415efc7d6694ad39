package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-net/holdfast/internal/metrics"
)

const root = "../.."

func made(t *testing.T) files {
	t.Helper()
	f, err := pages(root)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every key, command and metric has its page (pages fails otherwise), and the
// pages that are committed are those that would be written now.
func TestFresh(t *testing.T) {
	f := made(t)
	for _, name := range f.names() {
		old, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Errorf("%v: make generate writes it", err)
			continue
		}
		if diff := cmp.Diff(string(old), string(f[name])); diff != "" {
			t.Errorf("%s is stale; make generate writes it anew:\n%s", name, diff)
		}
	}
	there, err := existing(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range there {
		if _, ok := f[name]; !ok {
			t.Errorf("%s is written by nobody: make generate removes it", name)
		}
	}
}

func TestWriteIsRepeatable(t *testing.T) {
	first, second := made(t), made(t)
	for name := range first {
		if !bytes.Equal(first[name], second[name]) {
			t.Errorf("%s is another one each time", name)
		}
	}
}

// The golden list of internal/metrics is what users' graphs rely on: each of it
// has a heading.
func TestEveryMetricHasAnEntry(t *testing.T) {
	page := string(made(t)[metricsFile])
	n := 0
	for line := range strings.Lines(read(t, "internal/metrics/testdata/metrics.txt")) {
		name, _, _ := strings.Cut(line, " ")
		if !strings.Contains(page, "\n### "+name+"\n") {
			t.Errorf("%s has no entry", name)
		}
		n++
	}
	if n == 0 {
		t.Error("the golden list is empty")
	}
}

// metricNames finds the names of metrics in text.
func metricNames(text string) []string {
	return regexp.MustCompile(`\bholdfast_[a-z0-9_]+\b`).FindAllString(text, -1)
}

// Alerts, their page, and every other page name only metrics that exist, with
// labels that they have.
func TestAlertsNameMetrics(t *testing.T) {
	labels := make(map[string][]string)
	for _, g := range metrics.All() {
		for _, m := range g.Metrics {
			labels[m.Name] = append([]string{"instance", "job"}, m.Labels...)
		}
	}
	const rules = "packaging/prometheus/holdfast.rules.yaml"
	names := []string{rules}
	for _, dir := range []string{"docs/guide", "docs"} {
		all, err := filepath.Glob(filepath.Join(root, dir, "*.md"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range all {
			names = append(names, filepath.Join(dir, filepath.Base(file)))
		}
	}
	selector := regexp.MustCompile(`(holdfast_[a-z0-9_]+)\{([^}]*)\}`)
	for _, name := range names {
		text := read(t, name)
		for _, m := range metricNames(text) {
			if _, ok := labels[m]; !ok {
				t.Errorf("%s names %s, which is no metric", name, m)
			}
		}
		for _, s := range selector.FindAllStringSubmatch(text, -1) {
			for l := range strings.SplitSeq(s[2], ",") {
				label := strings.TrimRight(l[:strings.IndexAny(l+"=", "=!")], " ")
				if !slices.Contains(labels[s[1]], label) {
					t.Errorf("%s: %s has no label %s", name, s[1], label)
				}
			}
		}
	}

	guide := read(t, "docs/guide/alerts.md")
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(read(t, rules), -1)
	if len(alerts) == 0 {
		t.Fatal("there are no alerts")
	}
	for _, a := range alerts {
		if !strings.Contains(guide, "| "+a[1]+" |") {
			t.Errorf("docs/guide/alerts.md does not say what to do about %s", a[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\| (Holdfast\w+) \|`).FindAllStringSubmatch(guide, -1) {
		if !slices.ContainsFunc(alerts, func(a []string) bool { return a[1] == m[1] }) {
			t.Errorf("docs/guide/alerts.md knows %s, which is no alert", m[1])
		}
	}
}

// Every problem of status is explained in a guide, with what to do, and no guide
// explains one that does not exist.
func TestGuidesKnowProblems(t *testing.T) {
	var guides string
	for file, title := range map[string]string{
		"docs/guide/daemon.md": "## When it is degraded\n", "docs/guide/addresses.md": "## When it does not do what it should\n",
	} {
		_, section, ok := strings.Cut(read(t, file), title)
		if !ok {
			t.Fatalf("%s has no section %q", file, title)
		}
		section, _, _ = strings.Cut(section, "\n## ")
		guides += section
	}
	var codes []string
	for _, m := range regexp.MustCompile(`(?m)^\tProblem\w+\s*= "(\w+)"`).FindAllStringSubmatch(read(t, "admin/types.go"), -1) {
		codes = append(codes, m[1])
	}
	if len(codes) == 0 {
		t.Fatal("there are no problems")
	}
	var explained []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| .+ \\| .+ \\|$").FindAllStringSubmatch(guides, -1) {
		explained = append(explained, m[1])
	}
	slices.Sort(codes)
	slices.Sort(explained)
	if d := cmp.Diff(codes, explained); d != "" {
		t.Errorf("the problems that there are (-) and those that the guides explain (+):\n%s", d)
	}
}

// A link inside the repository leads somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	notInAnchor := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	anchors := func(text string) (all []string) {
		for _, h := range heading.FindAllStringSubmatch(text, -1) {
			all = append(all, strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
		}
		return all
	}
	var pages []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "docs/*/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	if len(pages) < 50 {
		t.Fatalf("only %d pages were found", len(pages))
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			target := filepath.Join(filepath.Dir(page), path)
			if path == "" {
				target = page
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			if anchor == "" {
				continue
			}
			text, err := os.ReadFile(target)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(anchors(string(text)), anchor) {
				t.Errorf("%s links to %s: there is no such heading", page, m[1])
			}
		}
	}
}

// Every manual is formatted without a warning, and shows its text as it was
// written.
func TestManuals(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff (package groff-base) is not there")
	}
	f := made(t)
	manuals := 0
	for _, name := range f.names() {
		if !strings.HasPrefix(name, manDir) {
			continue
		}
		manuals++
		cmd := exec.CommandContext(t.Context(), groff, "-man", "-Tutf8", "-ww", "-P-cbou")
		cmd.Stdin = bytes.NewReader(f[name])
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil || stderr.Len() > 0 {
			t.Errorf("%s: %v\n%s", name, err, stderr.String())
		}
		for _, want := range []string{"NAME", "DESCRIPTION", "SEE ALSO"} {
			if !strings.Contains(stdout.String(), "\n"+want+"\n") {
				t.Errorf("%s has no section %s:\n%s", name, want, stdout.String())
			}
		}
	}
	if manuals < 3 {
		t.Errorf("there are %d manuals", manuals)
	}
}

func TestRoff(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff (package groff-base) is not there")
	}
	m := newManual("x", 1, "a purpose")
	m.section("description")
	const text = `.so /etc/passwd
'br is no request
back\slash \n \fBnot bold\fR \\ "quoted" 'single' ~ ^ ` + "`back`" + ` -x --long-flag $( ) * ü
`
	m.code(text)
	cmd := exec.CommandContext(t.Context(), groff, "-man", "-Tutf8", "-ww", "-P-cbou")
	cmd.Stdin = bytes.NewReader(m.bytes())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(text) {
		if !strings.Contains(string(out), line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
}

func TestBlocks(t *testing.T) {
	got := blocks("One\ntwo.\n\nThree:\n  code\n\n  more\nfour.\n")
	want := []block{{lines: []string{"One", "two."}}, {lines: []string{"Three:"}}, {code: true, lines: []string{"  code", "", "  more"}}, {lines: []string{"four."}}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(block{})); diff != "" {
		t.Error(diff)
	}
}
