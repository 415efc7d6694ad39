package main

import (
	"fmt"
	"strings"

	"github.com/holdfast-net/holdfast/internal/metrics"
)

const metricsFile = "docs/reference/metrics.md"

// metricsPage writes the page of the metrics.
func metricsPage(f files) {
	var b strings.Builder
	b.WriteString(generated + `# The metrics

Prometheus finds them at ` + "`/metrics`" + ` of the address that [metrics.listen](configuration/metrics.listen.md) names, and on the admin
socket in any case:

    curl --unix-socket /run/holdfast/holdfast.sock http://holdfast/metrics

They are read from the node's state at each scrape, and cost nothing in between. None has a label whose values are connections
or clients, so their number follows the configuration: some 40 series for each service, 18 for each backend. A service or a backend
that is removed takes its series with it once its last connection has ended; the ends of a service's connections stay.

[What to alert on](../guide/alerts.md) has rules for them.
`)
	for _, g := range metrics.All() {
		fmt.Fprintf(&b, "\n## %s\n", g.Title)
		for _, m := range g.Metrics {
			fmt.Fprintf(&b, "\n### %s\n\n", m.Name)
			kind := m.Type()
			if len(m.Labels) > 0 {
				kind += ", by `" + strings.Join(m.Labels, "`, `") + "`"
			}
			fmt.Fprintf(&b, "*%s.* %s\n", kind, m.Help)
			if m.About != "" {
				b.WriteString("\n" + m.About + "\n")
			}
		}
	}
	b.WriteString("\n## The process and Go's runtime\n\nAs Prometheus's own library gathers them, under the names that existing dashboards know:\n")
	for _, name := range metrics.Runtime() {
		fmt.Fprintf(&b, "`%s`\n", name)
	}
	f[metricsFile] = []byte(b.String())
}
