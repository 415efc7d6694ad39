package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// tooBusy is the share of the CPUs that others may use before the figures say
// more about them than about the candidates.
const tooBusy = 0.05

// WriteTable prints the report for people: a block for each row, then the
// targets.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	r.header(&b)
	for _, row := range r.Rows {
		r.block(&b, row)
	}
	r.takeovers(&b)
	r.failures(&b)
	r.verdicts(&b)
	if r.Profile != nil {
		r.Profile.write(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) header(b *strings.Builder) {
	fmt.Fprintf(b, "Linux %s, %d x %s, %s, commit %s\n", r.Kernel, r.CPUs, cmp.Or(r.CPU, "CPU"), r.Go, cmp.Or(r.Commit, "unknown"))
	fmt.Fprintf(b, "%s, IPv%d, %d rounds of %gs cells, %s\n", r.Network, r.Family, r.Rounds, r.Seconds, r.Started.UTC().Format("2006-01-02 15:04 UTC"))
	if len(r.Background) > 0 {
		var mean float64
		for _, share := range r.Background {
			mean += share / float64(len(r.Background))
		}
		fmt.Fprintf(b, "others used %.0f %% of the CPUs on average, %.0f %% at most", 100*mean, 100*slices.Max(r.Background))
		if mean > tooBusy {
			fmt.Fprint(b, ": TOO MUCH, the ratios below are not to be trusted")
		}
		fmt.Fprintln(b)
	}
	for _, c := range r.Candidates {
		switch {
		case c.Skipped != "":
			fmt.Fprintf(b, "  %s: left out: %s\n", c.Name, c.Skipped)
		case c.Version != "":
			fmt.Fprintf(b, "  %s: %s\n", c.Name, c.Version)
		}
	}
}

// block prints one row: a line for each candidate, for each metric the median,
// and beside it the ratio to the reference where there is one.
func (r *Report) block(b *strings.Builder, row Row) {
	fmt.Fprintf(b, "\n%s (%s)\n", row.Title, row.Name)
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := []string{""}
	for i, m := range row.Metrics {
		head = append(head, m.Title)
		for _, reference := range r.references(row, i) {
			head = append(head, "x "+reference)
		}
	}
	fmt.Fprintln(tw, strings.Join(head, "\t")+"\t")
	for _, c := range r.Candidates {
		line, measured := []string{c.Name}, false
		for i, m := range row.Metrics {
			result, ok := r.result(row.Name, c.Name, m.Name)
			measured = measured || ok
			value := "-"
			if ok {
				value = fmt.Sprintf("%.*f", m.digits, result.Value.Median)
				if i == 0 && result.Errors > 0 {
					value = "! " + value
				}
			}
			line = append(line, value)
			for _, reference := range r.references(row, i) {
				line = append(line, ratioText(result.Ratios[reference], c.Name == reference))
			}
		}
		if measured {
			fmt.Fprintln(tw, strings.Join(line, "\t")+"\t")
		}
	}
	_ = tw.Flush() // into memory
}

func ratioText(s Spread, self bool) string {
	switch {
	case self:
		return "1"
	case s.N == 0:
		return "-"
	case s.N == 1:
		return fmt.Sprintf("%.2f", s.Median)
	}
	return fmt.Sprintf("%.2f (%.2f..%.2f)", s.Median, s.Min, s.Max)
}

func (r *Report) failures(b *strings.Builder) {
	first := true
	for _, s := range r.Samples {
		if s.Error == "" {
			continue
		}
		if first {
			fmt.Fprintln(b, "\nErrors (!)")
			first = false
		}
		fmt.Fprintf(b, "  %s on %s, round %d: %d, first %s\n", s.Row, s.Candidate, s.Round, max(s.Errors, 1), s.Error)
	}
}

func (r *Report) verdicts(b *strings.Builder) {
	if len(r.Verdicts) == 0 {
		return
	}
	fmt.Fprintln(b, "\nTargets of the relay (median of same-round ratios)")
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, v := range r.Verdicts {
		row, _ := r.row(v.Row)
		metric, _ := row.metric(v.Metric)
		sign, verdict := ">=", "met"
		if metric.LowerBetter {
			sign = "<="
		}
		if !v.Met {
			verdict = "MISSED"
		}
		if v.Reached.Min < v.Bound && v.Bound < v.Reached.Max {
			verdict += ", but not in every round"
		}
		bound, reached := fmt.Sprintf("%s %.0f %s", sign, v.Bound, metric.Unit), fmt.Sprintf("%.0f", v.Reached.Median)
		if v.Reference != "" {
			bound = fmt.Sprintf("%s %.2f x %s", sign, v.Bound, v.Reference)
			reached = ratioText(v.Reached, false)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s\n", v.Row, metric.Title, bound, reached, verdict)
	}
	_ = tw.Flush()
}
