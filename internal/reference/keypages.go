package main

import (
	"fmt"
	"strings"
)

const keyDir = "docs/reference/configuration/"

// keyPages writes a page for each key, and the index with the whole tree.
func keyPages(f files, keys []*key) {
	var b strings.Builder
	b.WriteString(generated + "# The configuration\n\n" +
		"One file, `/etc/holdfast/holdfast.yaml` unless `holdfast run -c FILE` names another. It is YAML, and strict: an unknown\n" +
		"key, a bad value, a contradiction is an error with its line and column, and all of them are reported at once.\n" +
		"`holdfast check` looks for them without running anything; `holdfast reload` takes a changed file, whole or not at all.\n\n" +
		"| key | default | what it is for |\n|---|---|---|\n")
	for _, top := range keys {
		for _, k := range top.all() {
			name := strings.Repeat("&nbsp;&nbsp;&nbsp;&nbsp;", strings.Count(k.Path, ".")) + "[" + k.name + "](" + k.page() + ")"
			fmt.Fprintf(&b, "| %s | %s | %s |\n", name, cell(k.standard(k.note)), cell(plain(firstSentence(k.doc[0]))))
			keyPage(f, k)
		}
	}
	b.WriteString("\n## A file\n\nThe least that does something:\n\n" + fenced("yaml", exampleFile(find(keys, "services"))) +
		"\n[packaging/holdfast.yaml](../../../packaging/holdfast.yaml) has every key, with its default.\n\n" +
		"## Not in this version\n\n" +
		"Keys and values whose work is still to come (`waiting`, `rehome`, `client_address`, `sources`, `accept_proxy`,\n" +
		"`send_proxy`, `keepalive`; `engine: packet`; `on_backend_lost: hold` and `rehome`) are refused with \"not supported by this\n" +
		"version\", never ignored.\n")
	f[keyDir+"README.md"] = []byte(b.String())
}

// find returns the key at path.
func find(keys []*key, path string) *key {
	for _, top := range keys {
		for _, k := range top.all() {
			if k.Path == path {
				return k
			}
		}
	}
	return nil
}

func keyPage(f files, k *key) {
	var b strings.Builder
	b.WriteString(generated)
	fmt.Fprintf(&b, "# %s\n\n`%s`, in ", k.name, k.Path)
	if k.parent == nil {
		b.WriteString("[the file](README.md)\n\n")
	} else {
		fmt.Fprintf(&b, "[%s](%s)\n\n", k.parent.name, k.parent.page())
	}
	for _, paragraph := range k.doc {
		b.WriteString(wrap(plain(paragraph), 110) + "\n\n")
	}
	b.WriteString("| | |\n|---|---|\n")
	fmt.Fprintf(&b, "| type | %s |\n", cell(k.kind()))
	if v := k.bounds(); v != "" {
		fmt.Fprintf(&b, "| values | %s |\n", cell(v))
	}
	fmt.Fprintf(&b, "| default | %s |\n", cell(k.standard(k.note)))
	fmt.Fprintf(&b, "| reload | %s |\n\n", cell(k.note.reload))
	if len(k.children) > 0 {
		b.WriteString("## Keys in it\n\n| key | default | what it is for |\n|---|---|---|\n")
		for _, c := range k.children {
			fmt.Fprintf(&b, "| [%s](%s) | %s | %s |\n", c.name, c.page(), cell(c.standard(c.note)), cell(plain(firstSentence(c.doc[0]))))
		}
		b.WriteByte('\n')
	}
	b.WriteString("## Example\n\n" + fenced("yaml", exampleFile(k)))
	if k.note.more != "" {
		b.WriteString("\n" + strings.TrimRight(k.note.more, "\n") + "\n")
	}
	f[keyDir+k.page()] = []byte(b.String())
}

// firstSentence ends at the first full stop that is followed by a space.
func firstSentence(text string) string {
	first, _, more := strings.Cut(text, ". ")
	if more {
		return first + "."
	}
	return text
}

// plain keeps Markdown from reading more into a comment than was written.
func plain(text string) string {
	return strings.NewReplacer("*", `\*`, "<", "&lt;", "_", `\_`, "[", `\[`).Replace(text)
}

// keyManual writes holdfast.yaml(5).
func keyManual(f files, keys []*key) {
	m := newManual("holdfast.yaml", 5, "the configuration of a Holdfast node")
	m.section("description")
	m.text("holdfast run reads one file, /etc/holdfast/holdfast.yaml unless -c names another. It is YAML, and strict: an unknown key, a bad value, " +
		"a contradiction is an error with its line and column, and all of them are reported at once. holdfast check looks for them without running anything; " +
		"holdfast reload takes a changed file, whole or not at all.")
	m.text("Below, a key is written with the keys that it stands in; [] is an item of a list.")
	for _, top := range keys {
		m.section(top.name)
		for _, k := range top.all() {
			m.item(k.Path)
			for i, paragraph := range k.doc {
				if i > 0 {
					m.inItem()
				}
				m.words(paragraph)
			}
			m.inItem()
			facts := "Type: " + bare(k.kind()) + "."
			if v := k.bounds(); v != "" {
				facts += " Values: " + bare(v) + "."
			}
			facts += " Default: " + strings.TrimSuffix(bare(k.standard(k.note)), ".") + "."
			m.words(facts)
			m.inItem()
			m.words("Reload: " + bare(k.note.reload))
		}
	}
	m.section("example")
	m.code(exampleFile(find(keys, "services")))
	m.section("files")
	m.item("/etc/holdfast/holdfast.yaml")
	m.words("The file that is read unless another is named.")
	m.section("see also")
	m.text("holdfast(1), holdfast-check(1), holdfast-reload(1), holdfast-run(1)")
	f[manDir+"holdfast.yaml.5"] = m.bytes()
}

// bare is Markdown's text without its signs.
func bare(text string) string { return strings.ReplaceAll(text, "`", "") }
