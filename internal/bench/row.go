package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Row is one thing that is measured on every candidate.
type Row struct {
	Name        string   `json:"name"`
	Title       string   `json:"title"`
	Load        loadKind `json:"load"`
	Connections int      `json:"connections"`
	Held        int      `json:"held,omitempty"` // connections that are there besides, and do nothing
	Metrics     []Metric `json:"metrics"`
	// References are the candidates that ratios are taken to: the first of
	// them that was measured for every metric that has ratios, the others for
	// the first metric.
	References []string `json:"references"`
}

// A Metric is one figure of a row.
type Metric struct {
	Name        string `json:"name"` // key of Sample.Values
	Title       string `json:"title"`
	Unit        string `json:"unit"`
	LowerBetter bool   `json:"lower_better"`
	Ratio       bool   `json:"ratio"` // shown as a ratio to the reference as well
	digits      int
}

// A Target is a bound that the project has set itself for the relay.
type Target struct {
	Row    string `json:"row"`
	Metric string `json:"metric"`
	// Reference is the candidate the ratio is taken to; without one, the bound
	// is on the figure itself.
	Reference string  `json:"reference,omitempty"`
	Bound     float64 `json:"bound"`
}

// Names of the candidates.
const (
	direct        = "direct"
	haproxy       = "haproxy"
	haproxyAuto   = "haproxy-splice-auto"
	haproxySplice = "haproxy-splice"
	nginx         = "nginx"
	holdfast      = "holdfast"
)

// Names of the metrics.
const (
	gbitPerSecond = "gbit_per_s"
	cpuPerGB      = "cpu_s_per_gb"
	perSecond     = "per_s"
	p50           = "p50_us"
	p99           = "p99_us"
	cpuEach       = "cpu_us"
	bytesEach     = "bytes"
	p99Noise      = "p99_noise_percent"
	p99Listing    = "p99_listing_us"
	p99Change     = "p99_change_percent"
	listingHalf   = "listing_p50_ms"
	listingWorst  = "listing_worst_ms"

	// CPU time of client and backend, in the JSON only: a proxy that answers in
	// smaller portions wakes them more often.
	loadPerGB = "load_cpu_s_per_gb"
	loadEach  = "load_cpu_us"
)

func allRows() []Row {
	bulk := []Metric{
		{Name: gbitPerSecond, Title: "Gbit/s", Unit: "Gbit/s", Ratio: true, digits: 1},
		{Name: cpuPerGB, Title: "CPU s/GB", Unit: "s/GB", LowerBetter: true, Ratio: true, digits: 3},
	}
	each := func(what string) []Metric {
		return []Metric{
			{Name: perSecond, Title: what + "/s", Unit: "/s", Ratio: true},
			{Name: p50, Title: "p50 us", Unit: "us", LowerBetter: true},
			{Name: p99, Title: "p99 us", Unit: "us", LowerBetter: true, Ratio: true},
			{Name: cpuEach, Title: "CPU us", Unit: "us", LowerBetter: true, Ratio: true, digits: 1},
		}
	}
	requests := func(n int, title string) Row {
		return Row{
			Name: fmt.Sprintf("rr%d", n), Title: "64-byte requests, " + title, Load: loadRequests, Connections: n,
			Metrics: each("requests"), References: []string{haproxy},
		}
	}
	return []Row{
		{Name: "bulk1", Title: "bulk, 1 stream", Load: loadBulk, Connections: 1, Metrics: bulk, References: []string{haproxy, haproxyAuto, haproxySplice}},
		{Name: "bulk8", Title: "bulk, 8 streams", Load: loadBulk, Connections: 8, Metrics: bulk, References: []string{haproxy, haproxyAuto, haproxySplice}},
		requests(1, "1 connection"),
		requests(32, "32 connections"),
		requests(100, "100 connections"),
		{
			Name: "conns", Title: "new connections (connect, 64-byte request, answer, close), 32 at once", Load: loadConnects, Connections: 32,
			Metrics: each("conns"), References: []string{haproxy},
		},
		{
			Name: "idle", Title: "user-space memory of an idle connection (PSS)", Load: loadIdle, Connections: 4000,
			Metrics: []Metric{{Name: bytesEach, Title: "bytes", Unit: "bytes", LowerBetter: true, Ratio: true}}, References: []string{haproxy},
		},
		{
			Name: "listing", Title: "64-byte requests, 32 connections, beside 9,000 idle ones that are listed once a second",
			Load: loadListing, Connections: 32, Held: 9000,
			Metrics: []Metric{
				{Name: p99, Title: "p99 us", Unit: "us", LowerBetter: true},
				{Name: p99Listing, Title: "p99 us, listing", Unit: "us", LowerBetter: true},
				{Name: p99Change, Title: "change %", Unit: "%", LowerBetter: true},
				{Name: p99Noise, Title: "noise %", Unit: "%", LowerBetter: true},
				{Name: listingHalf, Title: "a listing, p50 ms", Unit: "ms", LowerBetter: true, digits: 1},
				{Name: listingWorst, Title: "worst ms", Unit: "ms", LowerBetter: true, digits: 1},
			},
		},
	}
}

func allTargets() []Target {
	var targets []Target
	for _, row := range []string{"rr1", "rr32", "rr100", "conns"} {
		targets = append(targets, Target{row, perSecond, haproxy, 1.0}, Target{row, p99, haproxy, 1.0})
	}
	for _, row := range []string{"bulk1", "bulk8"} {
		targets = append(targets, Target{row, gbitPerSecond, haproxyAuto, 1.3}, Target{row, gbitPerSecond, haproxySplice, 1.0})
	}
	return append(targets,
		Target{Row: "idle", Metric: bytesEach, Bound: 2048},
		Target{Row: "listing", Metric: listingWorst, Bound: 100},
		Target{Row: "listing", Metric: p99Change, Bound: 10},
	)
}

// selectNamed returns those of all whose name is in want, in the order of all;
// all of them when want is empty. A name that is not there is an error.
func selectNamed[T any](what string, all []T, name func(T) string, want []string) ([]T, error) {
	if len(want) == 0 {
		return all, nil
	}
	for _, w := range want {
		if !slices.ContainsFunc(all, func(t T) bool { return name(t) == w }) {
			var names []string
			for _, t := range all {
				names = append(names, name(t))
			}
			return nil, fmt.Errorf("no %s is called %q; there are %s", what, w, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(t T) bool { return !slices.Contains(want, name(t)) }), nil
}

func (r Row) metric(name string) (Metric, bool) {
	i := slices.IndexFunc(r.Metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return Metric{}, false
	}
	return r.Metrics[i], true
}

// values turns what a client measured into the row's figures.
func (r Row) values(out outcome) map[string]float64 {
	values := map[string]float64{}
	count := float64(out.Count)
	if r.Load == loadBulk {
		values[gbitPerSecond] = count * 8 / 1e9 / out.Seconds
		if out.CPU > 0 && count > 0 {
			values[cpuPerGB] = out.CPU.Seconds() / (count / 1e9)
		}
		if count > 0 {
			values[loadPerGB] = out.LoadCPU.Seconds() / (count / 1e9)
		}
		return values
	}
	values[perSecond] = count / out.Seconds
	values[p50] = float64(out.P50) / float64(time.Microsecond)
	values[p99] = float64(out.P99) / float64(time.Microsecond)
	if out.CPU > 0 && count > 0 {
		values[cpuEach] = float64(out.CPU) / float64(time.Microsecond) / count
	}
	if count > 0 {
		values[loadEach] = float64(out.LoadCPU) / float64(time.Microsecond) / count
	}
	return values
}
