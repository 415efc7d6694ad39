package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/internal/cli"
)

const commandDir = "docs/reference/commands/"

// A command is one command of the program.
type command struct {
	*cobra.Command
	name string // with dashes, as its manual is called: holdfast-backend-drain
	subs []*command
}

// readCommands returns the program with all its commands, in the order of its
// help.
func readCommands() (*command, error) {
	root := cli.Tree()
	root.InitDefaultHelpCmd()
	c := tree(root)
	var errs []error
	for _, c := range c.all() {
		if c.Short == "" {
			errs = append(errs, fmt.Errorf("%s does not say what it does (Short)", c.CommandPath()))
		}
		if c.Runnable() && c.Example == "" && !c.generated() {
			errs = append(errs, fmt.Errorf("%s has no example", c.CommandPath()))
		}
		for _, f := range all(c.Flags().VisitAll) {
			if f.Usage == "" {
				errs = append(errs, fmt.Errorf("%s --%s does not say what it does", c.CommandPath(), f.Name))
			}
		}
	}
	return c, errors.Join(errs...)
}

func tree(c *cobra.Command) *command {
	c.InitDefaultHelpFlag()
	t := &command{Command: c, name: strings.ReplaceAll(c.CommandPath(), " ", "-")}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			t.subs = append(t.subs, tree(sub))
		}
	}
	return t
}

// generated says whether the command line's library has made the command.
func (c *command) generated() bool {
	return strings.HasPrefix(c.name, "holdfast-completion") || c.name == "holdfast-help"
}

// all returns c and every command below it.
func (c *command) all() []*command {
	list := []*command{c}
	for _, s := range c.subs {
		list = append(list, s.all()...)
	}
	return list
}

// exits are the exit codes of the commands that have others than the usual ones.
var exits = map[string][][2]string{
	"holdfast-status": {
		{"0", "the node answers; with --check: and is well"},
		{"1", "the node does not answer: one line on standard error says why and what to do"},
		{"2", "with --check: it is degraded, and the answer says why. Also: the command line is wrong"},
	},
	"holdfast-check": {
		{"0", "the file is valid"},
		{"1", "it is not: standard error has every mistake with its line and column"},
		{"2", "the command line is wrong"},
	},
}

func (c *command) exitCodes() [][2]string {
	if e, ok := exits[c.name]; ok {
		return e
	}
	return [][2]string{
		{"0", "done"},
		{"1", "refused or failed: one line on standard error says why and what to do"},
		{"2", "the command line is wrong"},
	}
}

// long is what a command says of itself.
func (c *command) long() string {
	if c.Long != "" {
		return strings.TrimSpace(c.Long)
	}
	return c.Short + "."
}

// blocks are paragraphs of text and of lines that stay as they are: those that
// are indented. A paragraph may go over from text to such lines.
func blocks(text string) (list []block) {
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		line = strings.TrimRight(line, " \n")
		code := strings.HasPrefix(line, "  ")
		last := len(list) - 1
		switch {
		case line == "" && last >= 0 && list[last].code:
			list[last].lines = append(list[last].lines, "")
		case line == "":
			list = append(list, block{})
		case last < 0 || list[last].code != code:
			list = append(list, block{code: code, lines: []string{line}})
		default:
			list[last].lines = append(list[last].lines, line)
		}
	}
	full := list[:0]
	for _, b := range list {
		for len(b.lines) > 0 && b.lines[len(b.lines)-1] == "" {
			b.lines = b.lines[:len(b.lines)-1]
		}
		if len(b.lines) > 0 {
			full = append(full, b)
		}
	}
	return full
}

type block struct {
	code  bool
	lines []string
}

func (b block) text() string { return strings.Join(b.lines, "\n") }

// dedent takes away what all lines are indented by.
func dedent(text string) string {
	least := -1
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if n := len(line) - len(strings.TrimLeft(line, " ")); least < 0 || n < least {
			least = n
		}
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(line[min(max(least, 0), len(line)-len(strings.TrimLeft(line, " "))):])
	}
	return b.String()
}

// A flag is one flag of a command.
type flagText struct {
	name, usage, fallback string
}

// all returns what visit visits.
func all[F any](visit func(func(F))) (list []F) {
	visit(func(f F) { list = append(list, f) })
	return list
}

// flags returns those of the command, then those of every command.
func (c *command) flags() []flagText {
	var list []flagText
	seen := make(map[string]bool)
	for _, f := range append(all(c.NonInheritedFlags().VisitAll), all(c.InheritedFlags().VisitAll)...) {
		if f.Hidden || seen[f.Name] {
			continue
		}
		seen[f.Name] = true
		one := flagText{name: "--" + f.Name, usage: f.Usage}
		if f.Shorthand != "" {
			one.name = "-" + f.Shorthand + ", " + one.name
		}
		// The word in backquotes is what the value is called.
		if before, rest, ok := strings.Cut(f.Usage, "`"); ok {
			word, after, _ := strings.Cut(rest, "`")
			one.name += " " + word
			one.usage = before + word + after
		} else if kind := f.Value.Type(); kind != "bool" {
			one.name += " " + valueNames[kind]
		}
		switch f.DefValue {
		case "", "false", "[]", "0", "0s":
		default:
			one.fallback = f.DefValue
		}
		list = append(list, one)
	}
	return list
}

// valueNames are the types of values, for those that have no name of their own.
var valueNames = map[string]string{"string": "word", "int": "number", "duration": "duration", "stringArray": "word", "uint": "number"}

func (f flagText) text() string {
	if f.fallback == "" {
		return f.usage
	}
	return f.usage + " (default " + f.fallback + ")"
}

func (c *command) synopsis() string {
	if len(c.subs) > 0 {
		return c.CommandPath() + " COMMAND"
	}
	return c.UseLine()
}

// commandPages writes a page for each command, and the index.
func commandPages(f files, root *command) {
	var b strings.Builder
	b.WriteString(generated + "# The commands\n\n| command | what it does |\n|---|---|\n")
	for _, c := range root.all()[1:] {
		fmt.Fprintf(&b, "| [%s](%s.md) | %s |\n", c.CommandPath(), c.name, cell(plain(c.Short)))
	}
	b.WriteString("\nExit codes: 0 done, 1 refused or failed (one line on standard error says why and what to do), 2 wrong usage. " +
		"The pages of the commands name the exceptions.\n")
	f[commandDir+"README.md"] = []byte(b.String())
	for _, c := range root.all()[1:] {
		commandPage(f, c)
	}
}

func commandPage(f files, c *command) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s# %s\n\n%s.\n\n", generated, c.CommandPath(), plain(strings.TrimSuffix(c.Short, ".")))
	b.WriteString(indent(c.synopsis(), "    ") + "\n\n")
	if c.Long != "" {
		for _, block := range blocks(c.long()) {
			if block.code {
				b.WriteString(fenced("", dedent(block.text())) + "\n")
			} else {
				b.WriteString(plain(block.text()) + "\n\n")
			}
		}
	}
	if len(c.subs) > 0 {
		b.WriteString("## Commands\n\n| command | what it does |\n|---|---|\n")
		for _, s := range c.subs {
			fmt.Fprintf(&b, "| [%s](%s.md) | %s |\n", s.Name(), s.name, cell(plain(s.Short)))
		}
		b.WriteByte('\n')
	}
	if list := c.flags(); len(list) > 0 {
		b.WriteString("## Flags\n\n| flag | what it does |\n|---|---|\n")
		for _, fl := range list {
			fmt.Fprintf(&b, "| %s | %s |\n", code(fl.name), cell(plain(fl.text())))
		}
		b.WriteByte('\n')
	}
	b.WriteString("## Exit codes\n\n| code | meaning |\n|---|---|\n")
	for _, e := range c.exitCodes() {
		fmt.Fprintf(&b, "| %s | %s |\n", e[0], cell(e[1]))
	}
	if c.Example != "" {
		b.WriteString("\n## Examples\n\n" + fenced("sh", dedent(c.Example)))
	}
	f[commandDir+c.name+".md"] = []byte(b.String())
}

// commandManuals writes holdfast(1), and one manual for each command.
func commandManuals(f files, root *command) {
	for _, c := range root.all() {
		m := newManual(c.name, 1, lowerFirst(c.Short))
		m.section("synopsis")
		m.text(c.synopsis())
		m.section("description")
		for _, block := range blocks(c.long()) {
			if block.code {
				m.code(dedent(block.text()))
			} else {
				m.text(block.text())
			}
		}
		if len(c.subs) > 0 {
			m.section("commands")
			for _, s := range c.subs {
				m.item(strings.TrimPrefix(s.CommandPath(), "holdfast "))
				m.words(s.Short + ". See " + s.name + "(1).")
			}
		}
		if list := c.flags(); len(list) > 0 {
			m.section("options")
			for _, fl := range list {
				m.item(fl.name)
				m.words(fl.text())
			}
		}
		m.section("exit status")
		for _, e := range c.exitCodes() {
			m.item(e[0])
			m.words(e[1])
		}
		if c.Example != "" {
			m.section("examples")
			m.code(dedent(c.Example))
		}
		if c.Flags().Lookup("socket") != nil || c.InheritedFlags().Lookup("socket") != nil {
			m.section("environment")
			m.item("HOLDFAST_SOCKET")
			m.words("The admin socket, where --socket does not name it.")
		}
		m.section("see also")
		see := []string{"holdfast.yaml(5)"}
		if c.Parent() != nil {
			see = append([]string{strings.ReplaceAll(c.Parent().CommandPath(), " ", "-") + "(1)"}, see...)
		}
		m.text(strings.Join(see, ", "))
		f[manDir+c.name+".1"] = m.bytes()
	}
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
