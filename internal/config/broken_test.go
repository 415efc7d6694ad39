package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what is printed now beside testdata/broken/*.yaml")

func files(t testing.TB, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(pattern)
	if err != nil || len(list) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return list
}

// TestBroken holds what every broken file is answered with against the text
// beside it.
func TestBroken(t *testing.T) {
	list := files(t, "testdata/broken/*.yaml")
	if len(list) < 60 {
		t.Errorf("%d kinds of broken files, want 60 or more", len(list))
	}
	for _, f := range list {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse("holdfast.yaml", text)
			errs, ok := errors.AsType[Errors](err)
			if c != nil || !ok {
				t.Fatalf("Parse gave %v, %v", c, err)
			}
			checkErrors(t, text, errs)
			golden := strings.TrimSuffix(f, ".yaml") + ".txt"
			got := errs.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// checkErrors holds for every error: it has a place inside of the file, the
// excerpt shows that line and points into it, and it says something.
func checkErrors(t *testing.T, text []byte, errs Errors) {
	t.Helper()
	if len(errs) == 0 || len(errs) > MaxErrors {
		t.Fatalf("%d errors", len(errs))
	}
	if !slices.IsSortedFunc(errs, func(a, b *Error) int { return (a.Line-b.Line)*100000 + a.Column - b.Column }) {
		t.Errorf("not sorted:\n%v", errs)
	}
	lines := strings.Split(strings.ReplaceAll(strings.TrimPrefix(string(text), bom), "\r\n", "\n"), "\n")
	for _, e := range errs {
		if e.File != "holdfast.yaml" || e.What == "" || strings.ContainsAny(e.What, "\n\r") || strings.Contains(e.What, "%!") && !strings.Contains(string(text), "%") {
			t.Errorf("bad error: %+v", e)
		}
		if e.Line < 1 || e.Line > len(lines) {
			t.Fatalf("line %d of %d: %v", e.Line, len(lines), e)
		}
		line := []rune(lines[e.Line-1])
		if e.Column < 1 || e.Column > len(line)+1 {
			t.Fatalf("column %d of %d: %v", e.Column, len(line), e)
		}
		shown, caret, ok := strings.Cut(e.Excerpt, "\n")
		_, shown, ok2 := strings.Cut(shown, " | ")
		_, caret, ok3 := strings.Cut(caret, " | ")
		if !ok || !ok2 || !ok3 || !strings.HasSuffix(caret, "^") || strings.Trim(caret, " \t^") != "" {
			t.Fatalf("excerpt:\n%s", e.Excerpt)
		}
		shown = strings.Trim(shown, "…")
		clean := strings.Map(func(c rune) rune {
			if c != '\t' && !unicode.IsPrint(c) {
				return '\uFFFD'
			}
			return c
		}, string(line))
		if !strings.Contains(clean, shown) || len(line) <= excerptWidth && clean != shown && !strings.Contains(clean, "…") {
			t.Errorf("the excerpt does not show line %d %q:\n%s", e.Line, line, e.Excerpt)
		}
	}
}
