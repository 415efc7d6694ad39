//go:build linux

package api

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-net/holdfast/admin"
)

const page = "../../docs/guide/api.md"

// Everything that can be asked is on the page, and nothing else: its path, its
// query keys, the codes of its errors.
func TestPage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	has := make(map[string]bool)
	for _, rt := range (&Server{}).table() {
		heading := rt.method + " " + rt.path
		has[heading] = true
		if !strings.Contains(string(text), "\n### `"+heading+"`\n") {
			t.Errorf("%s has no section %q", page, heading)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^### `(.*)`$").FindAllStringSubmatch(string(text), -1) {
		if !has[m[1]] {
			t.Errorf("%s has a section %q, which is no route", page, m[1])
		}
	}
	for code := range statusOf {
		if !strings.Contains(string(text), "`"+code+"`") {
			t.Errorf("%s does not explain the code %s", page, code)
		}
	}
	for _, command := range commands {
		if !strings.Contains(string(text), "`"+command+"`") {
			t.Errorf("%s does not explain the command %s", page, command)
		}
	}
	for _, key := range []string{"service", "backend", "client", "limit", "after", "follow", "every"} {
		if !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("%s does not explain the key %s", page, key)
		}
	}
	for _, v := range []any{admin.Reset{}, admin.ResetResult{}, admin.BackendResult{}, admin.Reload{}, admin.Error{}} {
		for f := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !strings.Contains(string(text), "`"+name+"`") && !strings.Contains(string(text), `"`+name+`"`) {
				t.Errorf("%s does not explain %s of %T", page, name, v)
			}
		}
	}
}
