package config

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decoder fills a Config from nodes, by the tags of the schema.
type decoder struct {
	*source
	at      map[string]Position // of every value that was understood, by its path
	keyAt   map[string]Position // of its key
	nodes   int
	tooMany bool
}

// fill puts the defaults into a struct and its parts.
func fill(v reflect.Value) {
	for _, f := range fields(v.Type()) {
		to := v.FieldByIndex(f.index)
		if text, ok := f.Tag.Lookup("default"); ok {
			if err := setScalar(to, &f, text); err != nil {
				panic(fmt.Sprintf("the default of %s: %v", f.Name, err)) // a test parses them all
			}
		}
		if inner, _ := structOf(f.Type); inner != nil && f.Type.Kind() == reflect.Struct {
			fill(to)
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// budget counts a value, and says whether there may be one more.
func (d *decoder) budget(at Position) bool {
	if d.nodes++; d.nodes > maxNodes && !d.tooMany {
		d.tooMany = true
		d.bad(at, "", "with what its aliases (*name) stand for, this file has more than %d values; write out less by them", maxNodes)
	}
	return !d.tooMany
}

// mapping fills the struct v from n.
func (d *decoder) mapping(path string, n *node, v reflect.Value) {
	if n.kind != mapping {
		d.wrongKind(path, n, "mapping", "")
		return
	}
	all := fields(v.Type())
	seen, known := make(map[string]bool), true
	for _, e := range n.entries {
		if !d.budget(e.at) {
			return
		}
		p := join(path, printable(e.key))
		known = known && e.value.kind != broken
		i := slices.IndexFunc(all, func(f field) bool { return f.name == e.key })
		if i < 0 && d.more {
			continue // guessing what was meant takes its time
		}
		if i < 0 {
			d.bad(e.at, p, "%s", unknownKey(path, e.key, v.Type(), all, n))
			for _, meant := range meantKeys(e.key, v.Type(), all) {
				seen[meant] = true
			}
			continue
		}
		seen[e.key] = true
		d.keyAt[p] = e.at
		d.value(p, e.value, v.FieldByIndex(all[i].index), &all[i])
	}
	for _, f := range all {
		if without := f.Tag.Get("without"); known && !seen[f.name] && (f.required() || without != "" && !seen[without]) {
			d.bad(n.at, path, "`%s` is missing; %s", f.name, missing[f.owner.Name()+"."+f.Name])
		}
	}
}

// missing says how to add what must be there.
var missing = map[string]string{
	"Config.Services":        "it is where clients connect: a list of name, listen and backends; or add `addresses` that this node shall own",
	"Pair.Listen":            "say where this node awaits the other, as `listen: 10.0.0.11:7420`",
	"Pair.Peer":              "say where the other node listens, as `peer: 10.0.0.12:7420`",
	"AddressGroup.Name":      "give the group a name of its own, as `name: front`",
	"AddressGroup.Interface": "say which interface has the addresses, as `interface: eth0`",
	"AddressGroup.Addresses": "say which addresses move, as `addresses: [10.0.0.100/24]`",
	"VRRP.ID":                "give both nodes the same number, which no other pair of this network has, as `id: 51`",
	"Service.Name":           "give the service a name of its own, as `name: web`",
	"Service.Listen":         "say where clients connect, as `listen: 10.0.0.100:80`",
	"Service.Backends":       "say who serves the clients, as `backends: [{address: \"10.0.0.21:80\"}]`, or `[]` for nobody yet",
	"Backend.Address":        "say where the backend is, as `address: 10.0.0.21:80`",
	"ExchangeCheck.Expect":   "say what a healthy backend answers, as `expect: \"+PONG\"`, or use `tcp: {}`",
	"CommandCheck.Argv":      "say which program to run, as `argv: [/usr/local/bin/check, now]`",
}

// value fills v, the value of a key, from n.
func (d *decoder) value(path string, n *node, v reflect.Value, f *field) {
	if n.kind == broken {
		return
	}
	inner, list := structOf(v.Type())
	switch {
	case v.Type() == reflect.TypeFor[[]Address]() && n.kind == scalar:
		one := reflect.New(v.Type().Elem()).Elem()
		if d.scalar(path, n, one, f) {
			v.Set(reflect.Append(v, one))
		}
	case v.Kind() == reflect.Slice && v.Type() != reflect.TypeFor[netip.Prefix]():
		d.list(path, n, v, f, inner, list)
	case inner != nil:
		if v.Kind() == reflect.Pointer {
			if n.kind == mapping {
				v.Set(reflect.New(inner))
				fill(v.Elem())
			}
			v = v.Elem()
		}
		if n.kind != mapping {
			d.wrongKind(path, n, "mapping", f.name)
			return
		}
		d.at[path] = n.at
		d.mapping(path, n, v)
	default:
		d.scalar(path, n, v, f)
	}
}

func (d *decoder) list(path string, n *node, v reflect.Value, f *field, inner reflect.Type, structs bool) {
	if n.kind != sequence {
		d.wrongKind(path, n, f.words(v.Type()), f.name)
		return
	}
	d.at[path] = n.at
	v.Set(reflect.MakeSlice(v.Type(), 0, len(n.items)))
	for i, it := range n.items {
		if !d.budget(it.at) {
			return
		}
		p := fmt.Sprintf("%s[%d]", path, i)
		one := reflect.New(v.Type().Elem()).Elem()
		d.keyAt[p] = it.at
		switch {
		case !structs || inner == nil:
			d.scalar(p, it.value, one, f)
		case it.value.kind == mapping:
			fill(one)
			d.at[p] = it.at
			d.mapping(p, it.value, one)
		case it.value.kind != broken:
			d.wrongKind(p, it.value, "mapping", f.name)
		}
		// What is wrong stays in the list, so that the numbers in paths are right.
		v.Set(reflect.Append(v, one))
	}
}

// scalar fills v from a single value, and reports whether it could.
func (d *decoder) scalar(path string, n *node, v reflect.Value, f *field) bool {
	switch n.kind {
	case broken:
		return false
	case scalar:
	default:
		d.wrongKind(path, n, f.words(v.Type()), f.name)
		return false
	}
	if text := n.text; slices.Contains(split(f.Tag.Get("later")), text) {
		d.bad(n.at, path, "`%s` is not supported by this version; write %s", text, list(f.enum(), "or"))
		return false
	}
	if err := notQuoted(n, v); err != nil {
		d.bad(n.at, path, "%v", err)
		return false
	}
	if err := setScalar(v, f, n.text); err != nil {
		d.bad(n.at, path, "%v", err)
		return false
	}
	d.at[path] = n.at
	return true
}

// notQuoted judges quotes where they change what a value is.
func notQuoted(n *node, v reflect.Value) error {
	switch {
	case v.Type() == reflect.TypeFor[Mode]():
		if !n.quoted {
			return fmt.Errorf("a mode is written in quotes, because YAML takes %s for another number: write %q", printable(n.text), "0"+strings.TrimLeft(strings.TrimPrefix(n.text, "0o"), "0"))
		}
	case !n.quoted:
	case v.Kind() == reflect.Bool:
		return fmt.Errorf("%s is a text; write true or false without quotes", quote(n.text))
	case v.Kind() == reflect.Int:
		if _, err := strconv.Atoi(n.text); err == nil {
			return fmt.Errorf("%s is a text; write %s without quotes", quote(n.text), n.text)
		}
	}
	return nil
}

// setScalar understands the text of a single value.
func setScalar(v reflect.Value, f *field, text string) error {
	if words := f.enum(); words != nil && !slices.Contains(words, text) {
		return notOneOf(text, words)
	}
	switch to := v.Addr().Interface().(type) {
	case *time.Duration:
		n, err := duration(text)
		if err != nil {
			return err
		}
		if err := within(n, text, f, duration); err != nil {
			return err
		}
		*to = n
		return nil
	case *Address:
		return setAddress(to, f, text)
	case *netip.Prefix:
		understand := network
		if f.Tag.Get("prefix") == "address" {
			understand = ownAddress
		}
		p, err := understand(text)
		*to = p
		return err
	case *netip.Addr:
		a, err := plainAddress(text)
		*to = a
		return err
	case encoding.TextUnmarshaler:
		return to.UnmarshalText([]byte(text))
	case *bool:
		switch text {
		case "true", "false":
			*to = text == "true"
			return nil
		case "yes", "on", "True", "TRUE", "Yes", "On", "YES", "ON", "1":
			return fmt.Errorf("%s is neither true nor false; write true", quote(text))
		case "no", "off", "False", "FALSE", "No", "Off", "NO", "OFF", "0":
			return fmt.Errorf("%s is neither true nor false; write false", quote(text))
		}
		return fmt.Errorf("%s is neither true nor false; write one of the two", quote(text))
	case *int:
		n, err := number(text)
		if err != nil {
			return err
		}
		if err := within(n, text, f, number); err != nil {
			return err
		}
		*to = n
		return nil
	case *string:
		*to = text
		return nil
	}
	panic(fmt.Sprintf("no rule for %v", v.Type())) // a test has one value of each type
}

func setAddress(to *Address, f *field, text string) (err error) {
	switch {
	case text == "" && !f.required():
		*to = Address{}
	case f.Tag.Get("address") == "listen":
		*to, err = ParseListen(text)
	case f.Tag.Get("address") == "pair":
		*to, err = parseNode(text)
	default:
		*to, err = ParseBackendAddress(text)
	}
	return err
}

// within holds a number against the bounds in its tags.
func within[T int | time.Duration](n T, text string, f *field, parse func(string) (T, error)) error {
	zero := f.Tag.Get("zero")
	if n == 0 && zero != "" {
		return nil
	}
	if n < 0 {
		return fmt.Errorf("%s is negative; write %v or more", text, T(0))
	}
	besides := ""
	if zero != "" {
		besides = fmt.Sprintf("; %v is %s", T(0), zero)
	}
	if tag := f.Tag.Get("min"); tag != "" {
		if least, err := parse(tag); err == nil && n < least {
			if why := whyMin[f.owner.Name()+"."+f.Name]; why != "" {
				tag += ", " + why
			}
			return fmt.Errorf("%s is too small; the least is %s%s", text, tag, besides)
		}
	}
	if tag := f.Tag.Get("max"); tag != "" {
		if most, err := parse(tag); err == nil && n > most {
			return fmt.Errorf("%s is too much; the most is %s%s", text, tag, besides)
		}
	}
	return nil
}

// whyMin says why a value has the least that it has, where one may wonder.
var whyMin = map[string]string{
	"Service.DeadPeerTimeout": "in which six probes fit",
}

var (
	integer   = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	bare      = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
	longUnits = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) *([A-Za-z]+)$`)
)

func number(text string) (int, error) {
	n, err := strconv.Atoi(text)
	switch {
	case integer.MatchString(text) && err != nil:
		return 0, fmt.Errorf("%s is too big a number; write a smaller one", printable(text))
	case err == nil && !integer.MatchString(text):
		return 0, fmt.Errorf("%s is not how a number is written here; write %d", printable(text), n)
	case err != nil:
		return 0, fmt.Errorf("%s is not a whole number; write one in digits, as 100", quote(text))
	}
	return n, nil
}

func duration(text string) (time.Duration, error) {
	n, err := time.ParseDuration(text)
	if err == nil && !bare.MatchString(text) && text[0] != '+' && text != "-0" {
		return n, nil
	}
	switch m := longUnits.FindStringSubmatch(text); {
	case text == "0":
		return 0, fmt.Errorf("`0` has no unit; write 0s")
	case bare.MatchString(text):
		return 0, fmt.Errorf("`%s` has no unit; write %ss or %sms", printable(text), printable(text), printable(text))
	case m != nil && units[strings.ToLower(m[2])] != "" && units[m[2]] != m[2]:
		return 0, fmt.Errorf("%s: write %s%s; the units are ms, s, m and h", quote(text), m[1], units[strings.ToLower(m[2])])
	case m != nil && days[strings.ToLower(m[2])] != 0:
		if n, err := strconv.Atoi(m[1]); err == nil && n < 10000 {
			return 0, fmt.Errorf("%s: there is no such unit; write %dh", quote(text), n*days[strings.ToLower(m[2])])
		}
	}
	if _, err := strconv.ParseFloat(strings.TrimRight(text, "nuµmsh"), 64); err == nil && strings.HasSuffix(text, "h") || strings.HasSuffix(text, "s") && longUnits.MatchString(text) {
		return 0, fmt.Errorf("%s is too long a time; write a shorter one", quote(text))
	}
	return 0, fmt.Errorf("%s is not a duration; write it as 500ms, 2s, 1m30s or 1h", quote(text))
}

// units are what people write for the units that exist; days those that do not,
// in hours.
var (
	units = map[string]string{
		"ms": "ms", "msec": "ms", "msecs": "ms", "millis": "ms", "milliseconds": "ms",
		"s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
		"m": "m", "min": "m", "mins": "m", "minute": "m", "minutes": "m", "h": "h", "hr": "h", "hour": "h", "hours": "h",
	}
	days = map[string]int{"d": 24, "day": 24, "days": 24, "w": 168, "week": 168, "weeks": 168}
)

// network understands a network, or a single address.
func network(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil && slices.Contains([]string{"all", "any", "*"}, text):
		return p, fmt.Errorf("%s: leave `allow` out to allow every client", quote(text))
	case err != nil:
		return p, fmt.Errorf("%s is not a network; write it as 10.0.0.0/8 or 2001:db8::/32", quote(text))
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%s is an IPv4 network in IPv6 form; write it as 10.0.0.0/8", quote(text))
	case p != p.Masked():
		return p, fmt.Errorf("%s has bits beyond its length; the network is %v", quote(text), p.Masked())
	}
	return p, nil
}

// wrongKind says that a value has another form than the key wants.
func (d *decoder) wrongKind(path string, n *node, want, key string) {
	have := ""
	switch n.kind {
	case broken:
		return
	case null:
		if strings.HasSuffix(path, "]") {
			d.bad(n.at, path, "this entry is empty; write something behind the `-`, or delete it")
			return
		}
		d.bad(n.at, path, "%s", noValue(want, key))
		return
	case scalar:
		have = quote(n.text)
	case mapping:
		have = "a mapping (`key: value`)"
	case sequence:
		have = "a list"
	}
	if strings.HasSuffix(path, "]") && n.kind != scalar && want != "mapping" {
		key = ""
	}
	remedy := "write a single value"
	switch {
	case want == "mapping" && n.kind == sequence && path == "":
		remedy = "begin with `services:`, and put the list under it"
	case want == "mapping" && path == "":
		remedy = "the file is `key: value` lines; begin with `services:`"
	case want == "mapping" && key == "health" && n.kind == scalar:
		remedy = "write " + checkOf(n.text)
	case want == "mapping" && key == "backends" && n.kind == scalar:
		remedy = fmt.Sprintf("write {address: %s}", quote(n.text))
	case key == "backends" && n.kind == scalar:
		remedy = fmt.Sprintf("write [{address: %s}]", quote(n.text))
	case key == "vrrp" && n.kind == scalar:
		remedy = fmt.Sprintf("write {id: %s}", printable(n.text))
	case key == "track" && n.kind == scalar:
		remedy = fmt.Sprintf("write {command: [%s]}", separate(n.text))
	case key == "notify" && n.kind != mapping:
		remedy = "write which command is for which role: {active: [...], backup: [...], fault: [...]}"
	case key == "drain" && n.kind == scalar:
		remedy = fmt.Sprintf("write {timeout: %s}", printable(n.text))
	case want == "mapping" && n.kind == sequence:
		remedy = "write `key: value` lines without `-`"
	case want == "mapping":
		remedy = "write `key: value` lines under it, or {} for its defaults"
	case strings.HasPrefix(want, "list of ") && n.kind == mapping:
		remedy = "write a `-` before each entry, or all of them in brackets: [a, b]"
	case slices.Contains([]string{"argv", "command", "active", "backup", "fault"}, key) && want != "mapping" && n.kind == scalar:
		remedy = fmt.Sprintf("write each argument by itself: [%s]", separate(n.text))
	case strings.HasPrefix(want, "list of "):
		remedy = fmt.Sprintf("write [%s]", printable(n.text))
	case n.kind == sequence && len(n.items) == 1 && n.items[0].value.kind == scalar:
		remedy = "write " + printable(n.items[0].value.text) + " without brackets and `-`"
	}
	d.bad(n.at, path, "%s where %s belongs; %s", have, article(want), remedy)
}

// separate is a command line as a list of arguments.
func separate(text string) string { return strings.Join(strings.Fields(printable(text)), ", ") }

func checkOf(text string) string {
	for _, k := range []string{"tcp", "none"} {
		if text == k {
			return "{" + k + ": {}}"
		}
	}
	switch text {
	case "http":
		return "{http: {path: /}}"
	case "exchange":
		return `{exchange: {send: "PING\r\n", expect: "+PONG"}}`
	case "command":
		return "{command: {argv: [/usr/local/bin/check]}}"
	case "false", "off", "no":
		return "{none: {}} to check nothing"
	}
	return "{tcp: {}}, or one of http, exchange, command and none in its place"
}

func noValue(want, key string) string {
	switch {
	case want == "mapping" && key == "":
		return "there is nothing here; write `key: value` lines"
	case want == "mapping":
		return fmt.Sprintf("`%s` has no value; write `%s: {}` for its defaults, indent the lines that belong to it, or leave it out", key, key)
	case strings.HasPrefix(want, "list of "):
		return fmt.Sprintf("`%s` has no value; write a list, or [] for an empty one", key)
	}
	return "there is no value; write " + article(want) + " behind the colon"
}

func article(want string) string {
	if want == "one of" {
		want = "word"
	}
	if strings.HasPrefix(want, "a") {
		return "an " + want
	}
	if want == "text" || want == "true or false" {
		return want
	}
	return "a " + want
}
