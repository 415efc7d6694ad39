//go:build linux

package api

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

// The metrics listener shows metrics, and nothing else, to everybody.
func TestMetricsListener(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			log := &sink{}
			s := NewMetrics(MetricsOptions{
				Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "holdfast_up 1") }),
				Node:    "<lb1>", Version: "1.2.3", Logger: logger(log),
			})
			serve(t, s, l)
			for _, tt := range []struct {
				method, url string
				code        int
				want        string
			}{
				{"GET", "/metrics", 200, "holdfast_up 1\n"},
				{"HEAD", "/metrics", 200, ""},
				{"GET", "/", 200, `<h1>Holdfast: &lt;lb1&gt;</h1>`},
				{"GET", "/", 200, `<a href="/metrics">`},
				{"POST", "/metrics", 405, "this listener takes GET, not POST"},
				{"GET", "/v1/status", 404, "everything else is on the node's socket"},
				{"POST", "/v1/reload", 405, "not POST"},
			} {
				code, header, answer := ask(t, "tcp", l.Addr().String(), tt.method, tt.url, "")
				if code != tt.code || !strings.Contains(answer, tt.want) || header.Get(headerAPI) == "" {
					t.Errorf("%s %s: %d %v %s", tt.method, tt.url, code, header, answer)
				}
			}
			s.requests.mu.Lock()
			s.requests.max = 0
			s.requests.mu.Unlock()
			if code, _, answer := ask(t, "tcp", l.Addr().String(), "GET", "/metrics", ""); code != 503 {
				t.Errorf("one too many: %d %s", code, answer)
			}
		})
	}
}
