package main

import (
	"slices"
	"time"
)

// A Report is everything a run measured and under what conditions; it is what
// -json writes.
type Report struct {
	Started time.Time `json:"started"`
	Commit  string    `json:"commit"` // of this program, "+" when the tree had changes
	Kernel  string    `json:"kernel"`
	CPUs    int       `json:"cpus"`
	CPU     string    `json:"cpu"`
	Go      string    `json:"go"`
	Network string    `json:"network"`
	Family  int       `json:"family"`
	Rounds  int       `json:"rounds"`
	Seconds float64   `json:"seconds"` // length of a cell
	// Background is the share of the CPUs that others used just before and
	// after each row of each round, when nothing of this run was at work, 0..1.
	Background []float64        `json:"background"`
	Candidates []CandidateState `json:"candidates"`
	Rows       []Row            `json:"rows"`
	Samples    []Sample         `json:"samples"`
	Results    []Result         `json:"results"`
	Verdicts   []Verdict        `json:"verdicts"`
	Takeovers  []Takeover       `json:"takeovers,omitempty"`
	Profile    *Profile         `json:"profile,omitempty"`
}

// CandidateState says what a candidate was, or why it was left out.
type CandidateState struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Skipped string `json:"skipped,omitempty"`
}

// A Sample is one cell: one row on one candidate in one round.
type Sample struct {
	Row       string             `json:"row"`
	Candidate string             `json:"candidate"`
	Round     int                `json:"round"`
	Values    map[string]float64 `json:"values"`
	Errors    int                `json:"errors,omitempty"` // connections that broke or could not be made
	Error     string             `json:"error,omitempty"`  // the first of them
}

// A Result is one metric of one row and candidate over all rounds.
type Result struct {
	Row       string `json:"row"`
	Candidate string `json:"candidate"`
	Metric    string `json:"metric"`
	Value     Spread `json:"value"`
	// Ratios are the same-round ratios to each of the row's references, where
	// there are any.
	Ratios map[string]Spread `json:"ratios,omitempty"`
	Errors int               `json:"errors,omitempty"`
}

// A Verdict is a target and what was reached.
type Verdict struct {
	Target
	Reached Spread `json:"reached"`
	Met     bool   `json:"met"` // the median meets the bound
}

// summarize fills Results and Verdicts from Samples.
func (r *Report) summarize(targets []Target) {
	r.Results, r.Verdicts = nil, nil
	for _, row := range r.Rows {
		for _, candidate := range r.Candidates {
			for i, metric := range row.Metrics {
				values, errors := r.values(row.Name, candidate.Name, metric.Name)
				if len(values) == 0 {
					continue
				}
				result := Result{Row: row.Name, Candidate: candidate.Name, Metric: metric.Name, Errors: errors}
				var all []float64
				for _, v := range values {
					all = append(all, v)
				}
				result.Value = spreadOf(all)
				for _, reference := range r.references(row, i) {
					base, _ := r.values(row.Name, reference, metric.Name)
					if ratio := ratioSpread(values, base); ratio.N > 0 {
						if result.Ratios == nil {
							result.Ratios = map[string]Spread{}
						}
						result.Ratios[reference] = ratio
					}
				}
				r.Results = append(r.Results, result)
			}
		}
	}
	for _, target := range targets {
		row, ok := r.row(target.Row)
		if !ok {
			continue
		}
		metric, ok := row.metric(target.Metric)
		result, measured := r.result(target.Row, holdfast, target.Metric)
		if !ok || !measured {
			continue
		}
		reached := result.Value
		if target.Reference != "" {
			reached = result.Ratios[target.Reference]
		}
		if reached.N == 0 {
			continue
		}
		met := reached.Median >= target.Bound
		if metric.LowerBetter {
			met = reached.Median <= target.Bound
		}
		r.Verdicts = append(r.Verdicts, Verdict{target, reached, met})
	}
}

// references returns what the i-th metric of a row has ratios to.
func (r *Report) references(row Row, i int) []string {
	if !row.Metrics[i].Ratio {
		return nil
	}
	measured := slices.DeleteFunc(slices.Clone(row.References), func(name string) bool {
		return !slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Candidate == name })
	})
	if i > 0 {
		return measured[:min(1, len(measured))]
	}
	return measured
}

// values returns a metric by round, and how many errors there were in all.
func (r *Report) values(row, candidate, metric string) (byRound map[int]float64, errors int) {
	byRound = map[int]float64{}
	for _, s := range r.Samples {
		if s.Row != row || s.Candidate != candidate {
			continue
		}
		errors += s.Errors
		if v, ok := s.Values[metric]; ok {
			byRound[s.Round] = v
		}
	}
	return byRound, errors
}

func (r *Report) row(name string) (Row, bool) {
	i := slices.IndexFunc(r.Rows, func(row Row) bool { return row.Name == name })
	if i < 0 {
		return Row{}, false
	}
	return r.Rows[i], true
}

func (r *Report) result(row, candidate, metric string) (Result, bool) {
	i := slices.IndexFunc(r.Results, func(res Result) bool {
		return res.Row == row && res.Candidate == candidate && res.Metric == metric
	})
	if i < 0 {
		return Result{}, false
	}
	return r.Results[i], true
}
