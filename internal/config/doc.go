// Package config reads the file that says what a node does.
//
// The file is YAML, and strict: an unknown key, a bad value, a contradiction is
// an [Error] with its line, its column, the place in the file, and what to do;
// all of them are found at once. What a [Config] holds is plain data that has
// been checked, with every default in place; nothing of it looks at the machine,
// so that a file can be checked anywhere.
//
// The comments of the fields are the reference that users read: a page and a
// part of holdfast.yaml(5) is generated from each. The first paragraph says what
// the key is for; what follows may name bounds, costs and formulas. A field's
// default, type and bounds come from its tags.
package config
