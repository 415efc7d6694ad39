// Package metrics shows a node to Prometheus.
//
// Nothing is counted here. At a scrape the node is asked once, as a person would
// ask for its status, and every value of that scrape comes from the one answer;
// between scrapes metrics cost nothing. No metric has a label whose values are
// connections or clients, so their number follows the configuration.
//
// [All] is the one list of metrics: the collector, the golden list in testdata
// and the reference in docs are made of it.
package metrics
