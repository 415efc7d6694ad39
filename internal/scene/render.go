//go:build linux

package scene

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// WriteText writes the verdict for a person: a table of the figures, with a
// column without Holdfast where that was measured, and what was wrong.
func (v *Verdict) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s (%.1f s, seed %d): %s\n", v.name(), v.Took.Seconds(), v.Seed, well(v.OK()))

	without := false
	for _, f := range v.Figures {
		without = without || f.Without != ""
	}
	header := []string{"", "with Holdfast", "allowed"}
	if without {
		header = append(header, "without")
	}
	rows := [][]string{header}
	for _, f := range v.Figures {
		name := f.Name
		if f.Part {
			name = "  " + name
		}
		if !f.OK() {
			name = "! " + name
		}
		row := []string{name, f.Measured(), f.Allowed()}
		if without {
			row = append(row, f.Without)
		}
		rows = append(rows, row)
	}
	if len(v.Figures) > 0 {
		writeColumns(&b, rows)
	}
	for _, t := range v.Tables {
		fmt.Fprintf(&b, "\n  %s\n", t.Title)
		writeColumns(&b, append([][]string{t.Header}, t.Rows...))
	}
	for _, wrong := range v.Wrong(true) {
		fmt.Fprintf(&b, "  WRONG: %s\n", wrong)
	}
	for _, note := range v.Notes {
		fmt.Fprintf(&b, "  note: %s\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteSummary writes a line for each verdict, with the figure that stands for it.
func WriteSummary(w io.Writer, verdicts []*Verdict) error {
	rows := [][]string{{"", "", "with Holdfast", "allowed", "without", ""}}
	for _, v := range verdicts {
		row := []string{v.name(), "", "", "", "", well(v.OK())}
		if len(v.Figures) > 0 {
			f := v.Figures[max(slices.IndexFunc(v.Figures, func(f *Figure) bool { return f.Headline }), 0)]
			copy(row[1:], []string{f.Name, f.Measured(), f.Allowed(), f.Without})
		}
		rows = append(rows, row)
	}
	var b strings.Builder
	b.WriteByte('\n')
	writeColumns(&b, rows)
	_, err := io.WriteString(w, b.String())
	return err
}

// name is what was played.
func (v *Verdict) name() string {
	name := v.Scene
	for _, part := range []string{v.Policy, v.Fault, v.Family} {
		if part != "" {
			name += ", " + part
		}
	}
	return name
}

// WriteText writes the distributions and every failure with how to see it again.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s: %d of %d runs well, in %s (campaign seed %d)\n",
		r.Scene, r.Played-len(r.Failures), r.Played, r.Took.Round(time.Second), r.Seed)
	if r.Again > 0 {
		fmt.Fprintf(&b, "  %d times a run whose times were exceeded was played again: the machine had kept the judge itself waiting for %s or more\n",
			r.Again, Milliseconds(disturbedBy))
	}
	var last *Distribution
	var rows [][]string
	flush := func() {
		if len(rows) > 0 {
			writeColumns(&b, rows)
		}
	}
	for i := range r.Distributions {
		d := &r.Distributions[i]
		if last == nil || last.Variant != d.Variant || last.Family != d.Family {
			flush()
			fmt.Fprintf(&b, "\n  %s\n", strings.TrimPrefix(d.Variant.String()+", "+d.Family, ", "))
			rows = [][]string{{"", "n", "min", "p50", "p90", "p99", "max", "allowed", "runs outside"}}
		}
		last = d
		name := d.Figure
		if d.Part {
			name = "  " + name
		}
		if d.Outside > 0 {
			name = "! " + name
		}
		u := d.Unit
		rows = append(rows, []string{
			name, fmt.Sprint(d.N), u.text(d.Min), u.text(d.P50), u.text(d.P90), u.text(d.P99), u.text(d.Max), d.Allowed, fmt.Sprint(d.Outside),
		})
	}
	flush()
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "\n  WRONG: %s, %s, seed %d\n", f.Variant, f.Family, f.Seed)
		for _, why := range f.Why {
			fmt.Fprintf(&b, "    %s\n", strings.ReplaceAll(why, "\n", "\n    "))
		}
		fmt.Fprintf(&b, "    again: %s\n", f.Again(r.Scene))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Again is the command that plays the failed run once more.
func (f *Failure) Again(scene string) string {
	again := "holdfast demo " + scene
	if f.Policy != "" {
		again += " --policy " + f.Policy
	}
	if f.Fault != "" {
		again += fmt.Sprintf(" --fault %q", f.Fault)
	}
	return again + fmt.Sprintf(" --family %s --seed %d", strings.TrimPrefix(f.Family, "ipv"), f.Seed)
}

func well(ok bool) string {
	if ok {
		return "well"
	}
	return "WRONG"
}

// writeColumns aligns cells: the first column to the left, as all others.
func writeColumns(b *strings.Builder, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, row := range rows {
		line := " "
		for i, cell := range row {
			line += " " + cell + strings.Repeat(" ", widths[i]-len(cell)+1)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}
