//go:build linux

package scene

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// A Verdict is what came of one run of a scene: figures with what they may be,
// and failures in words. Scenes add to it by Time, Count, Bytes and Fail.
type Verdict struct {
	Scene string `json:"scene"`
	Variant
	Family string        `json:"family"`
	Seed   uint64        `json:"seed"`
	Took   time.Duration `json:"took_ns"`

	// Disturbed is the longest time for which the machine kept the judge itself
	// from running. Times are measured no better than that.
	Disturbed time.Duration `json:"disturbed_ns"`

	Figures  []*Figure `json:"figures,omitempty"`
	Tables   []Table   `json:"tables,omitempty"`
	Failures []string  `json:"failures,omitempty"` // what was wrong that no figure says
	Notes    []string  `json:"notes,omitempty"`    // what explains it
}

// Correct reports whether everything but the times is as it must be: what a
// test demands.
func (v *Verdict) Correct() bool {
	return len(v.Failures) == 0 && !slices.ContainsFunc(v.Figures, func(f *Figure) bool { return f.Unit != Time && !f.OK() })
}

// OK reports whether everything is as it must be, the times too: what a
// demonstration and a campaign demand.
func (v *Verdict) OK() bool {
	return len(v.Failures) == 0 && !slices.ContainsFunc(v.Figures, func(f *Figure) bool { return !f.OK() })
}

// machineAtFault reports whether nothing but times is wrong, and the machine
// kept the judge itself from running for so long that they say little.
func (v *Verdict) machineAtFault() bool {
	return v.Correct() && !v.OK() && v.Disturbed >= disturbedBy
}

// MarshalJSON adds whether everything is as it must be.
func (v *Verdict) MarshalJSON() ([]byte, error) {
	type fields Verdict
	return json.Marshal(struct {
		OK bool `json:"ok"`
		*fields
	}{v.OK(), (*fields)(v)})
}

// Wrong lists what is not as it must be, one sentence each; with times or not.
func (v *Verdict) Wrong(times bool) []string {
	wrong := slices.Clone(v.Failures)
	for _, f := range v.Figures {
		if !f.OK() && (times || f.Unit != Time) {
			wrong = append(wrong, fmt.Sprintf("%s: %s, allowed %s", f.Name, f.Measured(), f.Allowed()))
		}
	}
	if times && v.machineAtFault() {
		wrong = append(wrong, "the machine was busy: it kept the judge itself waiting for up to "+Milliseconds(v.Disturbed))
	}
	return wrong
}

// Fail says that something is wrong, in words. Verdicts keep the first hundred.
func (v *Verdict) Fail(format string, args ...any) {
	if len(v.Failures) < 100 {
		v.Failures = append(v.Failures, fmt.Sprintf(format, args...))
	}
}

// Note adds what explains a verdict that is not well.
func (v *Verdict) Note(format string, args ...any) {
	v.Notes = append(v.Notes, fmt.Sprintf(format, args...))
}

// Must is Fail unless ok.
func (v *Verdict) Must(ok bool, format string, args ...any) {
	if !ok {
		v.Fail(format, args...)
	}
}

// Time adds times. Their bound is judged in demonstrations and campaigns only.
func (v *Verdict) Time(name string, times ...time.Duration) *Figure {
	return v.add(name, Time, int64s(times))
}

// Count adds a number of things.
func (v *Verdict) Count(name string, n int) *Figure { return v.add(name, Count, []int64{int64(n)}) }

// Bytes adds a number of bytes.
func (v *Verdict) Bytes(name string, n int64) *Figure { return v.add(name, Bytes, []int64{n}) }

func (v *Verdict) add(name string, u Unit, values []int64) *Figure {
	f := &Figure{Name: name, Unit: u, Values: values}
	v.Figures = append(v.Figures, f)
	return f
}

// Table adds a table of words, to be shown as it is.
func (v *Verdict) Table(t Table) { v.Tables = append(v.Tables, t) }

// A Table is shown below the figures.
type Table struct {
	Title  string     `json:"title"`
	Header []string   `json:"header"`
	Rows   [][]string `json:"rows"`
}

// A Unit is what a figure counts.
type Unit string

// The units of figures.
const (
	Time  Unit = "ns"
	Count Unit = "count"
	Bytes Unit = "bytes"
)

func (u Unit) text(n int64) string {
	switch u {
	case Time:
		return Milliseconds(time.Duration(n))
	case Bytes:
		switch {
		case n >= 10_000_000:
			return fmt.Sprintf("%.0f MB", float64(n)/1e6)
		case n >= 10_000:
			return fmt.Sprintf("%.0f kB", float64(n)/1e3)
		}
		return fmt.Sprintf("%d B", n)
	default:
		return strconv.FormatInt(n, 10)
	}
}

// Milliseconds writes a time as a person compares it with another one.
func Milliseconds(d time.Duration) string {
	switch abs := max(d, -d); {
	case abs >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case abs >= 20*time.Millisecond:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	default:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
}

// A Figure is one thing that was measured, once or for each of many, and what
// it may be: every value within the bounds.
type Figure struct {
	Name   string  `json:"name"`
	Unit   Unit    `json:"unit"`
	Values []int64 `json:"values"`

	// Part says that it is a part of the figure before it.
	Part bool `json:"part,omitempty"`

	// Headline says that it stands for the verdict where there is room for one
	// figure only; without any, the first figure does.
	Headline bool `json:"headline,omitempty"`

	// Low and High bound every value; nil: no bound.
	Low  *int64 `json:"at_least,omitempty"`
	High *int64 `json:"at_most,omitempty"`

	// Without is what the same came to without Holdfast, in words; empty: it
	// was not measured.
	Without string `json:"without,omitempty"`
}

// AtMost demands that no value is above the limit (in nanoseconds for times:
// pass a [time.Duration] through int64).
func (f *Figure) AtMost(limit int64) *Figure {
	f.High = &limit
	return f
}

// AtLeast demands that no value is below the limit.
func (f *Figure) AtLeast(limit int64) *Figure {
	f.Low = &limit
	return f
}

// Within demands times of at most d.
func (f *Figure) Within(d time.Duration) *Figure { return f.AtMost(int64(d)) }

// Exactly demands one value.
func (f *Figure) Exactly(n int) *Figure { return f.AtLeast(int64(n)).AtMost(int64(n)) }

// AsPart makes it a part of the figure before it.
func (f *Figure) AsPart() *Figure {
	f.Part = true
	return f
}

// AsHeadline makes it stand for the verdict.
func (f *Figure) AsHeadline() *Figure {
	f.Headline = true
	return f
}

// Versus says what the same came to without Holdfast.
func (f *Figure) Versus(format string, args ...any) *Figure {
	f.Without = fmt.Sprintf(format, args...)
	return f
}

// OK reports whether every value is within the bounds. Where there is a bound
// and no value, there was nothing to see, which is not well.
func (f *Figure) OK() bool {
	if f.Low == nil && f.High == nil {
		return true
	}
	return len(f.Values) > 0 && !slices.ContainsFunc(f.Values, func(n int64) bool {
		return f.Low != nil && n < *f.Low || f.High != nil && n > *f.High
	})
}

// Measured writes the values: one as it is, several as half of them and the
// worst.
func (f *Figure) Measured() string {
	switch len(f.Values) {
	case 0:
		return "-"
	case 1:
		return f.Unit.text(f.Values[0])
	}
	return f.Unit.text(quantile(f.Values, 0.5)) + ", worst " + f.Unit.text(slices.Max(f.Values))
}

// Allowed writes the bounds.
func (f *Figure) Allowed() string {
	switch {
	case f.Low != nil && f.High != nil && *f.Low == *f.High:
		return f.Unit.text(*f.Low)
	case f.Low != nil && f.High != nil:
		return f.Unit.text(*f.Low) + " to " + f.Unit.text(*f.High)
	case f.Low != nil:
		return ">= " + f.Unit.text(*f.Low)
	case f.High != nil:
		return "<= " + f.Unit.text(*f.High)
	}
	return ""
}

// quantile gives the smallest value that at least the share q of all values
// does not exceed.
func quantile(values []int64, q float64) int64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := int(q * float64(len(sorted)))
	if float64(n) == q*float64(len(sorted)) {
		n--
	}
	return sorted[min(max(n, 0), len(sorted)-1)]
}

func int64s[T ~int64](values []T) []int64 {
	all := make([]int64, len(values))
	for i, v := range values {
		all[i] = int64(v)
	}
	return all
}
