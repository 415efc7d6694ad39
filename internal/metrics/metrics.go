package metrics

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-net/holdfast/admin"
)

// Source is the node that is shown. It is asked at each scrape, by several
// goroutines at once if there are several scrapers.
type Source interface {
	Status() admin.Status

	// Ends are the ends of connections since the start, one entry for each
	// service, cause and side that occurred. Services that are gone stay in it.
	Ends() []admin.Ends

	// Lost says how many events and log lines could not be written since the
	// start.
	Lost() (events, logLines uint64)
}

// A Metric is one metric, with everything that is known of it.
type Metric struct {
	Name    string
	Counter bool     // a gauge otherwise
	Labels  []string // in the order of the reference
	Help    string   // one sentence, as Prometheus shows it
	About   string   // what an operator does with it; Markdown, may be empty

	read func(n *node, set setFunc)
}

// Type is "counter" or "gauge".
func (m *Metric) Type() string {
	if m.Counter {
		return "counter"
	}
	return "gauge"
}

// setFunc reports one value, with the values of the labels in their order.
type setFunc func(value float64, labels ...string)

// A Group is metrics about one thing.
type Group struct {
	Title   string
	Metrics []Metric
}

// All returns every metric of this package, in the order of the reference.
func All() []Group {
	return []Group{nodeMetrics(), configMetrics(), limitMetrics(), serviceMetrics(), listenerMetrics(), backendMetrics(), checkMetrics(), addressMetrics(), advertMetrics(), pairMetrics(), sourceMetrics()}
}

// collector asks the source at each scrape.
type collector struct {
	source  Source
	metrics []described
}

type described struct {
	Metric
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func newCollector(s Source) *collector {
	c := &collector{source: s}
	for _, g := range All() {
		for _, m := range g.Metrics {
			d := described{Metric: m, desc: prometheus.NewDesc(m.Name, m.Help, m.Labels, nil), kind: prometheus.GaugeValue}
			if m.Counter {
				d.kind = prometheus.CounterValue
			}
			c.metrics = append(c.metrics, d)
		}
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	n := look(c.source)
	for _, m := range c.metrics {
		m.read(n, func(value float64, labels ...string) {
			for i := range labels {
				labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
			}
			got, err := prometheus.NewConstMetric(m.desc, m.kind, value, labels...)
			if err != nil {
				got = prometheus.NewInvalidMetric(m.desc, err)
			}
			out <- got
		})
	}
}

// fill gives a registry the node's metrics, and a few of the process and of Go's
// runtime.
func fill(r *prometheus.Registry, s Source) *prometheus.Registry {
	r.MustRegister(newCollector(s),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled()))
	return r
}

// How a scrape is bounded: a scraper that hangs, or that comes too often, does
// not pile up work.
const (
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// Handler answers scrapes, in Prometheus's text format or in OpenMetrics. A
// source that cannot be shown is answered with HTTP 500 and the reason.
func Handler(s Source) http.Handler {
	return promhttp.HandlerFor(fill(prometheus.NewRegistry(), s), promhttp.HandlerOpts{
		ErrorHandling:       promhttp.HTTPErrorOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
		EnableOpenMetrics:   true,
	})
}

// Runtime returns the names of the metrics that Prometheus's own library gathers
// of the process and of Go's runtime, sorted.
func Runtime() []string {
	return []string{
		"go_gc_duration_seconds", "go_gc_gogc_percent", "go_gc_gomemlimit_bytes", "go_goroutines", "go_info",
		"go_memstats_last_gc_time_seconds", "go_sched_gomaxprocs_threads", "go_threads",
		"process_cpu_seconds_total", "process_max_fds", "process_network_receive_bytes_total",
		"process_network_transmit_bytes_total", "process_open_fds", "process_resident_memory_bytes",
		"process_start_time_seconds", "process_virtual_memory_bytes", "process_virtual_memory_max_bytes",
	}
}
