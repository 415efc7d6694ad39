package main

import "strings"

// sibling is a line that an example needs beside the key that it is about.
type sibling struct{ name, text string }

// around is what must stand before and after a key of the mapping at path.
func around(path, name string) (before, after []sibling) {
	switch {
	case path == "pair":
		return []sibling{{"listen", "10.0.0.11:7420"}, {"peer", "10.0.0.12:7420"}}, nil
	case path == "addresses":
		return []sibling{{"name", "front"}, {"interface", "eth0"}, {"addresses", "[10.0.0.100/24]"}}, nil
	case path == "addresses[].vrrp" && name == "preempt_delay":
		return []sibling{{"id", "51"}, {"preempt", "true"}}, nil
	case path == "addresses[].vrrp":
		return []sibling{{"id", "51"}}, nil
	case path == "addresses[].track" && name != "interfaces":
		return []sibling{{"command", "[/usr/local/bin/check-db]"}}, nil
	case path == "services":
		return []sibling{{"name", "web"}, {"listen", `":8080"`}}, []sibling{{"backends", "\n- address: 10.0.0.21:80"}}
	case path == "services[].backends":
		return []sibling{{"address", "10.0.0.21:80"}}, nil
	case strings.HasSuffix(path, ".exchange"):
		return []sibling{{"expect", `"+PONG"`}}, nil
	case strings.HasSuffix(path, ".command"):
		return []sibling{{"argv", "[/usr/local/bin/check-db]"}}, nil
	case path == "" && name == "addresses": // no service is needed
		return nil, nil
	case path == "" && name == "pair":
		return nil, []sibling{{"addresses", "\n- name: front\n  interface: eth0\n  addresses: [10.0.0.100/24]\n  vrrp: {id: 51}"}}
	case path == "": // the whole file
		return nil, []sibling{{"services", "\n- name: web\n  listen: \":8080\"\n  backends:\n    - address: 10.0.0.21:80"}}
	}
	return nil, nil
}

// exampleFile is a whole file, as short as it can be, in which the key has the
// value of its note.
func exampleFile(k *key) string {
	var chain []*key
	for ; k != nil; k = k.parent {
		chain = append([]*key{k}, chain...)
	}
	var b strings.Builder
	putKeys(&b, "", chain, "")
	return b.String()
}

// putKeys writes the mapping at path, which has the key that the chain leads to.
func putKeys(b *strings.Builder, path string, chain []*key, by string) {
	next := chain[0]
	before, after := around(path, next.name)
	put := func() {
		b.WriteString(by + next.name + ":")
		if len(chain) == 1 {
			b.WriteString(value(next.note.example, by+"  "))
			return
		}
		b.WriteByte('\n')
		if !next.list {
			putKeys(b, next.Path, chain[1:], by+"  ")
			return
		}
		var item strings.Builder
		putKeys(&item, next.Path, chain[1:], by+"    ")
		b.WriteString(by + "  - " + strings.TrimPrefix(item.String(), by+"    "))
		if also := chain[1].note.also; also != "" {
			b.WriteString(by + "  - " + also + "\n")
		}
	}
	done := false
	for _, s := range before {
		if s.name == next.name {
			put()
			done = true
			continue
		}
		b.WriteString(by + s.name + ":" + value(s.text, by+"  "))
	}
	if !done {
		put()
	}
	for _, s := range after {
		if s.name != next.name {
			b.WriteString(by + s.name + ":" + value(s.text, by+"  "))
		}
	}
}

// value is a value behind its key: on the same line, or as a block below.
func value(text, by string) string {
	if block, ok := strings.CutPrefix(text, "\n"); ok {
		return "\n" + indent(block, by) + "\n"
	}
	return " " + text + "\n"
}
