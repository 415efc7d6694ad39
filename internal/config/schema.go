package config

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/balance"
)

// Key is one key of the file, as [Keys] lists it from the schema. Its meaning is
// the comment of its field.
type Key struct {
	Path     string   // services[].health.http.path; [] stands for each entry of a list
	Type     string   // in words: text, whole number, duration, one of, list of addresses ...
	Default  string   // what holds without the key, as in the file; "" where there is no such value
	Unset    string   // the same in words, where no value stands for it: the backend's
	Required bool     // there is no default: the key must be there
	Without  string   // the key must be there unless this one is, beside it; "" where it need not be
	Min, Max string   // bounds, both allowed; "" for none
	Zero     string   // what 0 means, where it means something of its own; allowed besides Min..Max
	Enum     []string // the words that are allowed; nil for any
	Struct   string   // the Go type and field of this package that describe the key
	Field    string
}

// Keys lists every key of the file, in the order of the schema, each mapping
// before what is in it.
func Keys() []Key {
	return keys("", reflect.TypeFor[Config]())
}

func keys(prefix string, t reflect.Type) []Key {
	var all []Key
	for _, f := range fields(t) {
		k := Key{
			Path: prefix + f.name, Type: words(f.Type),
			Default: f.Tag.Get("default"), Unset: f.Tag.Get("unset"), Required: f.required(), Without: f.Tag.Get("without"),
			Min: f.Tag.Get("min"), Max: f.Tag.Get("max"), Zero: f.Tag.Get("zero"), Enum: f.enum(),
			Struct: f.owner.Name(), Field: f.Name,
		}
		if k.Enum != nil {
			k.Type = "one of"
		}
		if f.Type == reflect.TypeFor[[]Address]() {
			k.Type = "address, or list of addresses"
		}
		all = append(all, k)
		if inner, list := structOf(f.Type); inner != nil {
			if list {
				k.Path += "[]"
			}
			all = append(all, keys(k.Path+".", inner)...)
		}
	}
	return all
}

// field is a key's field in the struct of its mapping.
type field struct {
	reflect.StructField
	name  string
	index []int        // from the mapping's struct
	owner reflect.Type // that the field is written in; another one for inlined fields
}

func (f *field) required() bool { return f.Tag.Get("required") == "true" }

func (f *field) enum() []string { return split(f.Tag.Get("enum")) }

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// known holds what fields has listed: the tags of a type do not change.
var known sync.Map // of reflect.Type: []field

// fields lists the keys of a mapping, inlined ones in their place. The list is
// shared: it is not to be changed.
func fields(t reflect.Type) []field {
	if all, ok := known.Load(t); ok {
		return all.([]field)
	}
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		switch name {
		case "", "-":
		case ",inline":
			for _, inner := range fields(f.Type) {
				inner.index = append(slices.Clone(f.Index), inner.index...)
				all = append(all, inner)
			}
		default:
			all = append(all, field{StructField: f, name: name, index: f.Index, owner: t})
		}
	}
	known.Store(t, all)
	return all
}

// structOf returns the struct behind a mapping or a list of mappings; nil for
// other values.
func structOf(t reflect.Type) (inner reflect.Type, list bool) {
	switch t {
	case reflect.TypeFor[Address](), reflect.TypeFor[netip.Prefix](), reflect.TypeFor[netip.Addr]():
		return nil, false
	}
	switch t.Kind() {
	case reflect.Pointer:
		return structOf(t.Elem())
	case reflect.Slice:
		inner, _ = structOf(t.Elem())
		return inner, true
	case reflect.Struct:
		return t, false
	default:
		return nil, false
	}
}

// words names a type, that of the field or of its entries, as the reference does.
func (f *field) words(t reflect.Type) string {
	w := words(t)
	if f.Tag.Get("prefix") == "address" {
		w = strings.NewReplacer("networks", "addresses with a length", "network", "address with a length").Replace(w)
	}
	return w
}

// words names a type as the reference does.
func words(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Address]():
		return "address"
	case reflect.TypeFor[netip.Prefix]():
		return "network"
	case reflect.TypeFor[netip.Addr]():
		return "IP address"
	case reflect.TypeFor[Mode]():
		return "mode"
	case reflect.TypeFor[balance.Policy]():
		return "one of"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return words(t.Elem())
	case reflect.Slice:
		one := words(t.Elem())
		if strings.HasSuffix(one, "address") {
			return "list of " + one + "es"
		}
		return "list of " + one + "s"
	case reflect.Int:
		return "whole number"
	case reflect.Bool:
		return "true or false"
	case reflect.Struct:
		return "mapping"
	default:
		return "text"
	}
}
