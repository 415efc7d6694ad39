package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/internal/scene/own"
	"github.com/holdfast-net/holdfast/lab"
)

// takeoverInterval is between two adverts: the shortest that VRRP can say.
const takeoverInterval = 10 * time.Millisecond

// A Takeover is what came of the death of an owner's host, again and again. All
// are milliseconds from the death on.
type Takeover struct {
	Candidate string `json:"candidate"`
	// Claimed: until the other node said on the wire that it has the address.
	Claimed Spread `json:"claimed_ms"`
	// OnLink and Routed: in which no new client was served, beside the nodes and
	// behind a router.
	OnLink Spread `json:"service_gap_on_link_ms"`
	Routed Spread `json:"service_gap_routed_ms"`
}

// takeoverCandidates are measured in turns, in a network of their own.
var takeoverCandidates = []string{"keepalived", holdfast}

// takeovers measures how long an address is without an owner that answers, n
// times with each candidate.
func takeovers(ctx context.Context, n int, binary string, family lab.Family, progress io.Writer) ([]Takeover, error) {
	type values struct{ claimed, onLink, routed []float64 }
	all := make([]values, len(takeoverCandidates))
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	program := &scene.Program{Path: binary}
	for i := range n {
		fmt.Fprintf(progress, "takeover %d of %d\n", i+1, n)
		for c, name := range takeoverCandidates {
			d, installed, err := own.MeasureDeath(ctx, &scene.Env{Family: family, Seed: uint64(i + 1), Program: program}, takeoverInterval, name != holdfast)
			if err != nil {
				return nil, fmt.Errorf("takeover of %s: %w", name, err)
			}
			if !installed {
				continue
			}
			v := &all[c]
			for _, to := range []struct {
				values *[]float64
				d      time.Duration
			}{{&v.claimed, d.Claimed}, {&v.onLink, d.OnLink}, {&v.routed, d.Routed}} {
				*to.values = append(*to.values, float64(to.d)/float64(time.Millisecond))
			}
		}
	}
	var list []Takeover
	for c, name := range takeoverCandidates {
		if v := all[c]; len(v.claimed) > 0 {
			list = append(list, Takeover{name, spreadOf(v.claimed), spreadOf(v.onLink), spreadOf(v.routed)})
		}
	}
	return list, nil
}

// takeovers prints the rows of what came of them.
func (r *Report) takeovers(b *strings.Builder) {
	if len(r.Takeovers) == 0 {
		return
	}
	fmt.Fprintf(b, "\ntakeover after the death of the owner's host, adverts every %v, median and range of %d, ms (takeover)\n", takeoverInterval, r.Takeovers[0].Claimed.N)
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\taddress on the other node\tno service, on-link\tno service, routed\t")
	for _, t := range r.Takeovers {
		line := t.Candidate
		for _, s := range []Spread{t.Claimed, t.OnLink, t.Routed} {
			line += fmt.Sprintf("\t%.1f (%.1f..%.1f)", s.Median, s.Min, s.Max)
		}
		fmt.Fprintln(tw, line+"\t")
	}
	_ = tw.Flush() // into memory
}
