package daemon

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/relay"
)

func inFile(weight int) fileBackend {
	return fileBackend{Backend: relay.Backend{Name: "r1", Address: relay.MustParseAddress("10.0.0.21:6379"), Weight: weight}}
}

func command(do string, weight int) order {
	return order{admin.BackendCommand{Do: do, Weight: weight}, "redis", "uid 1000", time.Unix(1, 0)}
}

func TestHands(t *testing.T) {
	type step struct {
		do     string // a command, or "file" for a reload
		weight int
		max    int // max_connections, of a reload
		want   int // the weight in force; -1 for removed
		what   string
		same   bool // the command changes nothing
	}
	for name, steps := range map[string][]step{
		"drain lasts until the file changes the weight": {
			{do: "file", weight: 100, want: 100},
			{do: admin.DoDrain, want: 0, what: "drain"},
			{do: admin.DoDrain, want: 0, what: "drain", same: true},
			{do: "file", weight: 100, max: 7, want: 0, what: "drain"},
			{do: "file", weight: 50, max: 7, want: 50},
			{do: "file", weight: 100, max: 7, want: 100},
		},
		"resume is what the file says": {
			{do: "file", weight: 100, want: 100},
			{do: admin.DoWeight, weight: 7, want: 7, what: "weight"},
			{do: admin.DoResume, want: 100},
			{do: admin.DoResume, want: 100, same: true},
		},
		"weight 0 is drain": {
			{do: "file", weight: 100, want: 100},
			{do: admin.DoWeight, weight: 0, want: 0, what: "drain"},
			{do: admin.DoDrain, want: 0, what: "drain", same: true},
		},
		"the file's own weight needs no hand": {
			{do: "file", weight: 100, want: 100},
			{do: admin.DoWeight, weight: 100, want: 100, same: true},
			{do: admin.DoWeight, weight: 7, want: 7, what: "weight"},
			{do: admin.DoWeight, weight: 100, want: 100},
		},
		"drained in the file": {
			{do: "file", weight: 0, want: 0},
			{do: admin.DoDrain, want: 0, same: true},
			{do: admin.DoWeight, weight: 5, want: 5, what: "weight"},
		},
		"removed until its entry changes": {
			{do: "file", weight: 100, want: 100},
			{do: admin.DoWeight, weight: 7, want: 7, what: "weight"},
			{do: admin.DoRemove, want: -1, what: "remove"},
			{do: admin.DoRemove, want: -1, what: "remove", same: true},
			{do: "file", weight: 100, want: -1, what: "remove"},
			{do: "file", weight: 100, max: 7, want: 100},
		},
		"removed until it is resumed": {
			{do: "file", weight: 100, want: 100},
			{do: admin.DoRemove, want: -1, what: "remove"},
			{do: admin.DoResume, want: 100},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var h hands
			var file fileBackend
			for i, s := range steps {
				if s.do == "file" {
					file = inFile(s.weight)
					file.MaxConnections = s.max
					h = h.after([]fileBackend{file})
				} else {
					next, changed, err := h.apply(command(s.do, s.weight), file)
					if err != nil || changed == s.same {
						t.Fatalf("step %d, %s: changed %t, %v", i, s.do, changed, err)
					}
					h = next
				}
				b, removed := h.inForce(file.Backend)
				if removed != (s.want < 0) || !removed && b.Weight != s.want {
					t.Errorf("step %d, %s: weight %d, removed %t, want %d", i, s.do, b.Weight, removed, s.want)
				}
				by := h.byHand("r1")
				if (by == nil) != (s.what == "") || by != nil && (by.What != s.what || by.FileWeight != file.Weight || by.By != "uid 1000") {
					t.Errorf("step %d, %s: by hand %+v, want %q", i, s.do, by, s.what)
				}
			}
			if left := h.after(nil); len(left) > 0 {
				t.Errorf("the backend left the file, and of it is left: %v", left)
			}
		})
	}
}

// What a host name stands for may change without the file saying anything new.
func TestHandsAndHosts(t *testing.T) {
	file := inFile(100)
	file.host = "r1.example:6379"
	h, _, err := hands(nil).apply(command(admin.DoRemove, 0), file)
	if err != nil {
		t.Fatal(err)
	}
	file.Address = relay.MustParseAddress("10.0.0.99:6379")
	if _, removed := h.after([]fileBackend{file}).inForce(file.Backend); !removed {
		t.Error("another answer of a name server has brought a removed backend back")
	}
	file.host = "r2.example:6379"
	if _, removed := h.after([]fileBackend{file}).inForce(file.Backend); removed {
		t.Error("another host in the file has not brought a removed backend back")
	}
}

func TestHandsRefuse(t *testing.T) {
	removed, _, err := hands(nil).apply(command(admin.DoRemove, 0), inFile(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		hands hands
		order order
		code  string
		text  string
	}{
		{nil, command(admin.DoWeight, 65536), admin.CodeInvalid, "weight 65536"},
		{nil, command(admin.DoWeight, -1), admin.CodeInvalid, "give 0 (drain) to 65535"},
		{nil, command("explode", 0), admin.CodeInvalid, `"explode"`},
		{removed, command(admin.DoDrain, 0), admin.CodeRefused, "holdfast backend resume redis r1"},
		{removed, command(admin.DoWeight, 5), admin.CodeRefused, "was removed by hand"},
	} {
		_, changed, err := tt.hands.apply(tt.order, inFile(100))
		refused, ok := errors.AsType[*admin.Error](err)
		if !ok || changed || refused.Code != tt.code || !strings.Contains(refused.Error(), tt.text) {
			t.Errorf("%s %d: %v", tt.order.Do, tt.order.Weight, err)
		}
	}
}

// After any sequence of commands and reloads the weight in force is the file's,
// unless a command was given after the file last changed that weight.
func TestHandsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h hands
		file := inFile(rapid.IntRange(0, 3).Draw(t, "first weight"))
		byCommand := -1 // the weight that a command gave since the file last changed it
		removedAs := (*fileBackend)(nil)
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			switch do := rapid.SampledFrom([]string{"file", "file", "leave", admin.DoDrain, admin.DoWeight, admin.DoResume, admin.DoRemove}).Draw(t, "do"); do {
			case "file":
				next := inFile(rapid.IntRange(0, 3).Draw(t, "weight"))
				next.MaxConnections = rapid.IntRange(0, 1).Draw(t, "max_connections")
				h = h.after([]fileBackend{next})
				if next.Weight != file.Weight {
					byCommand = -1
				}
				if next != file {
					removedAs = nil
				}
				file = next
			case "leave": // and come back
				h = h.after(nil).after([]fileBackend{file})
				byCommand, removedAs = -1, nil
			default:
				weight := rapid.IntRange(0, 3).Draw(t, "weight")
				next, _, err := h.apply(command(do, weight), file)
				switch {
				case err != nil && removedAs != nil && (do == admin.DoDrain || do == admin.DoWeight):
					continue
				case err != nil:
					t.Fatal(err)
				}
				h = next
				switch do {
				case admin.DoDrain:
					byCommand = 0
				case admin.DoWeight:
					byCommand = weight
				case admin.DoResume:
					byCommand, removedAs = -1, nil
				case admin.DoRemove:
					// It takes the place of what was set before.
					byCommand, removedAs = -1, &file
				}
			}
			want := file.Weight
			if byCommand >= 0 {
				want = byCommand
			}
			b, removed := h.inForce(file.Backend)
			if removed != (removedAs != nil) || !removed && b.Weight != want {
				t.Fatalf("the file says %d, a command %d, removed %t; in force is %d, removed %t", file.Weight, byCommand, removedAs != nil, b.Weight, removed)
			}
		}
	})
}
