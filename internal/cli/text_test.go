package cli

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1: "1 B", 999: "999 B", 1000: "1.0 kB", 1234: "1.2 kB", 12_345: "12.3 kB", 99_949: "99.9 kB", 99_950: "100 kB",
		999_499: "999 kB", 999_500: "1.0 MB", 1_234_567: "1.2 MB", 98_765_432_100: "98.8 GB", math.MaxUint64: "18.4 EB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
}

func TestMemory(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 300 << 20: "300 MiB", 1 << 30: "1.0 GiB", 25_008_066_560: "23.3 GiB",
		2 << 40: "2.0 TiB", math.MaxUint64: "16777216 TiB",
	} {
		if got := memory(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
}

func TestRate(t *testing.T) {
	for _, tt := range []struct {
		f    float64
		unit string
		want string
	}{
		{0, "", "0/s"}, {0.25, "", "0.2/s"}, {9.94, "", "9.9/s"}, {9.96, "", "10/s"}, {12345.6, "", "12,346/s"}, {math.NaN(), "", "-"},
		{0, "B", "0 B/s"}, {1500, "B", "1.5 kB/s"}, {math.NaN(), "B", "-"},
	} {
		if got := rate(tt.f, tt.unit); got != tt.want {
			t.Errorf("%v %s is %q, want %q", tt.f, tt.unit, got, tt.want)
		}
	}
}

func TestSpan(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		0: "0s", 1: "<1ms", 3 * time.Millisecond: "3ms", 999 * time.Millisecond: "999ms", time.Second: "1.0s", 9999 * time.Millisecond: "9.9s",
		10 * time.Second: "10s", 59999 * time.Millisecond: "59s", time.Minute: "1m00s", 192 * time.Second: "3m12s", time.Hour - 1: "59m59s",
		time.Hour: "1h00m", day - 1: "23h59m", 76*time.Hour + 3*time.Minute: "3d04h", 999 * day: "999d00h", 40 * 365 * day: "14600d", -time.Second: "-1.0s",
		math.MaxInt64: "106751d", math.MinInt64 + 1: "-106751d",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	if since(now, now.Add(time.Hour)) != "0s" {
		t.Error("a clock that was set back makes a time negative")
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567", -123: "-123", -1234: "-1,234"} {
		if got := number(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestWidth(t *testing.T) {
	for s, want := range map[string]int{"": 0, "abc": 3, "старый": 6, "予備": 4, "e\u0301": 1, "한국": 4, "😀": 2, "a\x1b[31mb\x1b[0m": 2, "…": 1} {
		if got := width(s); got != want {
			t.Errorf("%q takes %d cells, want %d", s, got, want)
		}
	}
}

// TestCut says that what is cut fits, keeps its beginning, and leaves no style on.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := plain(rapid.String().Draw(t, "text"))
		if rapid.Bool().Draw(t, "styled") {
			s = painter(true).paint(red, s)
		}
		cells := rapid.IntRange(0, 40).Draw(t, "cells")
		got := cut(s, cells)
		if width(got) > cells {
			t.Fatalf("%q cut to %d is %q, %d cells", s, cells, got, width(got))
		}
		if width(s) <= cells && got != s {
			t.Fatalf("%q fits into %d, and became %q", s, cells, got)
		}
		if strings.Contains(got, "\x1b") && !strings.HasSuffix(got, reset) {
			t.Fatalf("%q leaves a style on", got)
		}
	})
}

// TestPlain says that no text from elsewhere commands a terminal.
func TestPlain(t *testing.T) {
	for s, want := range map[string]string{
		"r1": "r1", "\x1b[2J": `\x1b[2J`, "a\nb": `a\nb`, "\u202ex": `\u202ex`, "\x9b": `\x9b`, "\u009b": `\u009b`, "予備": "予備", "\ufffd": "\ufffd", "a\xffb": `a\xffb`,
	} {
		if got := plain(s); got != want {
			t.Errorf("%q became %q, want %q", s, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := plain(string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")))
		if strings.ContainsFunc(s, unwelcome) {
			t.Fatalf("%q still commands a terminal", s)
		}
	})
}
