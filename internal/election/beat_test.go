package election

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func someBeat() Beat {
	return Beat{
		Stamp: 12345678901234, Echo: 4321, Role: Active, Phase: Handing,
		Epoch: 7, Owned: 7, Move: 8, Running: true, Well: true, Able: true,
		Priority: 200, Interval: 10 * time.Millisecond, Hold: 25 * time.Millisecond,
		MAC:       MAC{2, 0, 0, 0, 0, 1},
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.11"), netip.MustParseAddr("fe80::11")},
	}
}

func TestBeat(t *testing.T) {
	for _, want := range []Beat{{}, someBeat()} {
		raw := want.AppendTo(nil)
		got, err := ParseBeat(raw)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Error(d)
		}
		for n := range raw {
			if _, err := ParseBeat(raw[:n]); err == nil {
				t.Errorf("%d of %d bytes are taken for a beat", n, len(raw))
			}
		}
	}
	many := someBeat()
	for len(many.Addresses) < 3*MaxBeatAddresses {
		many.Addresses = append(many.Addresses, netip.MustParseAddr("2001:db8::1"))
	}
	raw := many.AppendTo(nil)
	if got, err := ParseBeat(raw); err != nil || len(got.Addresses) != MaxBeatAddresses || len(raw) > MaxBeatSize {
		t.Errorf("%d addresses in %d bytes, %v", len(got.Addresses), len(raw), err)
	}
}

func TestBeatRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   string
	}{
		"version":   {func(b []byte) []byte { b[0] = 9; return b }, "version 9"},
		"role":      {func(b []byte) []byte { b[1] = 9; return b }, "role 9"},
		"phase":     {func(b []byte) []byte { b[2] = 99; return b }, "phase 99"},
		"flags":     {func(b []byte) []byte { b[3] = 0x80; return b }, "flags 0x80"},
		"stamp":     {func(b []byte) []byte { b[5] = 0x80; return b }, "stamp"},
		"addresses": {func(b []byte) []byte { b[beatHeader-1] = 200; return b }, "200 addresses"},
		"length":    {func(b []byte) []byte { b[beatHeader] = 5; return b }, "5 bytes"},
		"more":      {func(b []byte) []byte { return append(b, 0) }, "behind its end"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseBeat(c.change(someBeat().AppendTo(nil))); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// What is read is what would be written, byte for byte.
func FuzzBeat(f *testing.F) {
	f.Add(someBeat().AppendTo(nil))
	f.Add(Beat{}.AppendTo(nil))
	f.Add([]byte{beatVersion})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ParseBeat(raw)
		if err != nil {
			return
		}
		if again := b.AppendTo(nil); !bytes.Equal(raw, again) {
			t.Errorf("%x is read as %+v, which is written as %x", raw, b, again)
		}
	})
}
