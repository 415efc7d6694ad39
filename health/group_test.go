//go:build linux

package health

import (
	"slices"
	"testing"
)

func TestGroup(t *testing.T) {
	var got []GroupChange
	g := NewGroup(func(c GroupChange) { got = append(got, c) }, "a", "b")
	expect := func(what string, want ...GroupChange) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
		got = nil
	}
	g.Set("a", Down)
	expect("one down, one unknown")
	g.Set("b", Up)
	g.Set("b", Down)
	expect("both down", GroupChange{AllDown: true, Backend: "b", Backends: 2})
	g.Set("b", Down)
	g.Set("a", Down)
	expect("still down")
	if !g.AllDown() {
		t.Error("AllDown is false")
	}
	g.Set("a", Up)
	expect("first back", GroupChange{Backend: "a", Backends: 2})
	g.Set("b", Up)
	expect("second back")

	g.Set("a", Down)
	g.Remove("b")
	expect("the last one up was removed", GroupChange{AllDown: true, Backend: "b", Backends: 1})
	g.Set("c", Unknown)
	expect("one was added", GroupChange{Backend: "c", Backends: 2})
	g.Remove("c")
	got = nil
	g.Remove("a")
	expect("nobody left", GroupChange{Backend: "a", Backends: 0})

	silent := NewGroup(nil, "a")
	silent.Set("a", Down)
	if !silent.AllDown() {
		t.Error("AllDown is false without a function")
	}
}
