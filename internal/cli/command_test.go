package cli

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// everyCommand calls do for each command that a user sees.
func everyCommand(t *testing.T, do func(t *testing.T, cmd *cobra.Command)) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" {
			return
		}
		t.Run(strings.ReplaceAll(cmd.CommandPath(), " ", "_"), func(t *testing.T) { do(t, cmd) })
		for _, below := range cmd.Commands() {
			walk(below)
		}
	}
	walk(newRoot(Streams{Out: io.Discard, Err: io.Discard}))
}

// explained is a line of the help of a flag: its name, the word for its value,
// and what it is for.
var explained = regexp.MustCompile(`^ +(-\w, )?--[\w-]+( \S+)? {3,}\S`)

// TestHelp says that every command explains itself: the reference and the manual
// pages are made of it.
func TestHelp(t *testing.T) {
	everyCommand(t, func(t *testing.T, cmd *cobra.Command) {
		for what, text := range map[string]string{"Short": cmd.Short, "Long": cmd.Long, "Example": cmd.Example} {
			if text == "" {
				t.Errorf("it has no %s", what)
			}
			if text != strings.TrimSpace(text) && what != "Example" {
				t.Errorf("its %s has spaces around it", what)
			}
		}
		if strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("its Short ends with a full stop: %q", cmd.Short)
		}
		for line := range strings.Lines(cmd.Long) {
			if n := len(strings.TrimSuffix(line, "\n")); n > 90 {
				t.Errorf("a line of its Long has %d characters: %q", n, line)
			}
		}
		if cmd.HasParent() && !cmd.Parent().HasParent() && cmd.GroupID == "" {
			t.Error("it is in no group of the help")
		}
		for line := range strings.Lines(cmd.LocalNonPersistentFlags().FlagUsages()) {
			if !explained.MatchString(line) {
				t.Errorf("a flag says nothing about itself: %s", line)
			}
		}
		if !cmd.HasSubCommands() && cmd.ValidArgsFunction == nil && cmd.ValidArgs == nil && strings.ContainsAny(cmd.Use, "[. ") {
			t.Error("its arguments are not completed")
		}
	})
}

// TestExamples says that each example is a command line that is understood: the
// command and its flags exist, and so many arguments are taken.
func TestExamples(t *testing.T) {
	everyCommand(t, func(t *testing.T, cmd *cobra.Command) {
		shown := false
		for _, words := range examples(t, cmd.Example) {
			root := newRoot(Streams{Out: io.Discard, Err: io.Discard})
			found, args, err := root.Find(words)
			if err != nil {
				t.Errorf("%q: %v", words, err)
				continue
			}
			shown = shown || found.CommandPath() == cmd.CommandPath()
			if found.DisableFlagParsing {
				continue
			}
			if err := found.ParseFlags(args); err != nil {
				t.Errorf("%q: %v", words, err)
				continue
			}
			if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%q: %v", words, err)
			}
			if found.HasSubCommands() && len(found.Flags().Args()) > 0 {
				t.Errorf("%q: there is no command %q", words, found.Flags().Args()[0])
			}
		}
		if !shown && !cmd.HasSubCommands() {
			t.Error("no example of it is one")
		}
	})
}

// examples finds the calls of holdfast in shell lines, and takes them apart as a
// shell does, as far as examples need it.
func examples(t *testing.T, text string) [][]string {
	t.Helper()
	var all [][]string
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		var words []string
		for _, w := range append(shellWords(t, line), ";") {
			switch {
			case w == "|" || w == "&&" || w == ";" || w == ">":
				for len(words) > 0 && strings.Contains(words[0], "=") {
					words = words[1:]
				}
				if len(words) > 0 && words[0] == "holdfast" {
					all = append(all, words[1:])
				}
				words = nil
			case strings.HasPrefix(w, "<("):
				words = []string{strings.TrimPrefix(w, "<(")}
			default:
				words = append(words, strings.TrimSuffix(w, ")"))
			}
		}
	}
	return all
}

func shellWords(t *testing.T, line string) []string {
	t.Helper()
	var words []string
	var word strings.Builder
	quote, quoted := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, quoted = r, true
		case quote == 0 && r == ' ':
			if word.Len() > 0 || quoted {
				words = append(words, word.String())
			}
			word.Reset()
			quoted = false
		default:
			word.WriteRune(r)
		}
	}
	if quote != 0 {
		t.Errorf("%s: a quote has no end", line)
	}
	if word.Len() > 0 || quoted {
		words = append(words, word.String())
	}
	return words
}

// TestResetIsMeant says that connections are reset only where it was said which.
func TestResetIsMeant(t *testing.T) {
	for args, want := range map[string]string{
		"":                            "which connections?",
		"--all":                       "which connections?",
		"--limit 5":                   "which connections?",
		"12 x 0":                      `"x" is not the ID`,
		"-- -3":                       `"-3" is not the ID`,
		"12 --service web":            "not both",
		"12 --all":                    "not both",
		"--service web --all":         "",
		"--service web":               "",
		"--client 10.0.0.0/8":         "",
		"--service web --limit 5":     "",
		"--backend b --limit 0":       "--limit 0 would reset nothing",
		"--backend b --all --limit 1": "contradict",
		"12 13":                       "",
		"18446744073709551615":        "",
		"18446744073709551616":        "is not the ID",
	} {
		var f filterFlags
		var all bool
		cmd := &cobra.Command{Use: "x"}
		f.registerService(cmd, &nodeFlags{})
		f.registerBackend(cmd, &nodeFlags{})
		f.registerClient(cmd)
		f.registerLimit(cmd, "x")
		cmd.Flags().BoolVar(&all, "all", false, "x")
		if err := cmd.ParseFlags(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		_, err := f.toReset(cmd, cmd.Flags().Args(), all)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}
