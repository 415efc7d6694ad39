// Testreport reads the output of "go test -json" and prints what a person
// wants to see of it: Go's own line for every package, everything a failed test
// said, and at the end the tests that were left out, each with its reason. It
// fails if a test failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	failed, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	if failed {
		os.Exit(1)
	}
}

// event is one line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build event
	Test       string
	Output     string
}

type test struct{ pkg, name string }

// noise is what the runner says about a test that says nothing itself.
var noise = regexp.MustCompile(`^\s*(=== (RUN|PAUSE|CONT|NAME)|--- (PASS|SKIP|FAIL): )`)

// report copies what matters from r to w and says whether anything failed.
func report(r io.Reader, w io.Writer) (failed bool, err error) {
	said := make(map[test][]string)
	var order []test // of the tests that said something and have not ended
	var leftOut []string
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				_, _ = w.Write(line) // not an event: something the go command itself says
			} else {
				t := test{e.Package, e.Test}
				switch {
				case e.Action == "output" && e.Test == "", e.Action == "build-output":
					if e.Output != "PASS\n" {
						fmt.Fprint(w, e.Output)
					}
				case e.Action == "output":
					if said[t] == nil {
						order = append(order, t)
					}
					said[t] = append(said[t], e.Output)
				case e.Action == "fail" && e.Test == "":
					// A panic or a deadline ends the package with tests still open.
					for _, open := range order {
						if open.pkg == e.Package {
							fmt.Fprint(w, strings.Join(said[open], ""))
							delete(said, open)
						}
					}
					failed = true
				case e.Action == "fail":
					fmt.Fprint(w, strings.Join(said[t], ""))
					delete(said, t)
					failed = true
				case e.Action == "skip" && e.Test != "":
					leftOut = append(leftOut, fmt.Sprintf("  %s %s: %s", t.pkg, t.name, reason(said[t])))
					delete(said, t)
				case e.Action == "pass":
					delete(said, t)
				case e.Action == "build-fail":
					failed = true
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return failed, fmt.Errorf("reading the events: %w", err)
		}
	}
	if len(leftOut) == 0 {
		fmt.Fprintln(w, "Left out: nothing.")
		return failed, nil
	}
	fmt.Fprintf(w, "Left out, %d:\n%s\n", len(leftOut), strings.Join(leftOut, "\n"))
	return failed, nil
}

// position is what testing puts before the reason of a skip.
var position = regexp.MustCompile(`^\s*[^\s:]+\.go:\d+: `)

// reason is the last thing a skipped test said.
func reason(said []string) string {
	var last []string
	for _, line := range said {
		switch {
		case noise.MatchString(line):
		case position.MatchString(line):
			last = []string{strings.TrimSpace(position.ReplaceAllString(line, ""))}
		default:
			last = append(last, strings.TrimSpace(line))
		}
	}
	if len(last) == 0 {
		return "no reason given"
	}
	return strings.Join(last, " ")
}
