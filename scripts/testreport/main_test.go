package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	tests := []struct {
		name   string
		in     []string
		want   []string
		not    []string
		failed bool
	}{
		{
			name: "a quiet success",
			in: []string{
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: chatter\n"}`,
				`{"Action":"pass","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}`,
				`{"Action":"pass","Package":"p"}`,
			},
			want: []string{"ok  \tp\t0.1s\n", "Left out: nothing."},
			not:  []string{"chatter", "=== RUN"},
		},
		{
			name: "a failure says everything it said",
			in: []string{
				`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: wrong\n"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"--- FAIL: TestA (0.00s)\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
				`{"Action":"fail","Package":"p"}`,
			},
			want:   []string{"a_test.go:1: wrong\n", "--- FAIL: TestA"},
			failed: true,
		},
		{
			name: "a panic prints the test that was open",
			in: []string{
				`{"Action":"output","Package":"p","Test":"TestA","Output":"panic: boom\n"}`,
				`{"Action":"fail","Package":"p"}`,
			},
			want:   []string{"panic: boom"},
			failed: true,
		},
		{
			name: "a skip is named last, with its reason and without its place",
			in: []string{
				`{"Action":"output","Package":"p","Test":"TestA/v6","Output":"    a_test.go:1: earlier\n"}`,
				`{"Action":"output","Package":"p","Test":"TestA/v6","Output":"    a_test.go:7: no IPv6 here\n"}`,
				`{"Action":"output","Package":"p","Test":"TestA/v6","Output":"    --- SKIP: TestA/v6 (0.00s)\n"}`,
				`{"Action":"skip","Package":"p","Test":"TestA/v6"}`,
				`{"Action":"pass","Package":"p"}`,
			},
			want: []string{"Left out, 1:\n  p TestA/v6: no IPv6 here\n"},
			not:  []string{"earlier"},
		},
		{
			name: "a package that does not build",
			in: []string{
				`{"ImportPath":"p","Action":"build-output","Output":"a.go:1: syntax error\n"}`,
				`{"ImportPath":"p","Action":"build-fail"}`,
			},
			want:   []string{"syntax error"},
			failed: true,
		},
		{
			name: "what is not an event is passed on",
			in:   []string{`go: updates to go.mod needed`},
			want: []string{"go: updates to go.mod needed\n"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			failed, err := report(strings.NewReader(strings.Join(tt.in, "\n")+"\n"), &out)
			if err != nil {
				t.Fatal(err)
			}
			if failed != tt.failed {
				t.Errorf("failed = %v, want %v", failed, tt.failed)
			}
			for _, s := range tt.want {
				if !strings.Contains(out.String(), s) {
					t.Errorf("output lacks %q:\n%s", s, out.String())
				}
			}
			for _, s := range tt.not {
				if strings.Contains(out.String(), s) {
					t.Errorf("output has %q:\n%s", s, out.String())
				}
			}
		})
	}
}
