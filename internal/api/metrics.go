//go:build linux

package api

import (
	"fmt"
	"html"
	"log/slog"
	"net/http"

	"github.com/holdfast-net/holdfast/admin"
)

// MetricsOptions configures the Server of the metrics listener.
type MetricsOptions struct {
	Metrics http.Handler
	Node    string       // its name, on the page that / is
	Version string       // of the program
	Logger  *slog.Logger // nil discards
}

// NewMetrics makes a Server for the metrics listener: it answers /metrics, a
// page at / that leads there, and nothing else, to everybody who reaches it.
func NewMetrics(o MetricsOptions) *Server {
	s := newServer(o.Version, o.Logger)
	s.rights.Store(&rights{nobody: true})
	title := "Holdfast: " + html.EscapeString(o.Node)
	page := fmt.Sprintf("<!doctype html>\n<html lang=\"en\"><title>%s</title>\n<h1>%s</h1>\n<p>Version %s</p>\n<p><a href=\"/metrics\">Metrics</a></p>\n</html>\n",
		title, title, html.EscapeString(o.Version))
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		if !s.requests.enter(false) {
			s.fail(w, r, errBusy("requests", maxRequests))
			return
		}
		defer s.requests.leave()
		o.Metrics.ServeHTTP(w, r)
	})
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if _, err := w.Write([]byte(page)); err != nil {
			s.log.Debug("a page was not read", "err", err)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &admin.Error{
			Code: admin.CodeUnknown, Text: "this listener has no path " + r.URL.Path,
			Remedy: "it has /metrics; everything else is on the node's socket",
		})
	})
	s.handler = s.guard(readOnly(s, mux))
	return s
}

// readOnly refuses every method that is not for reading.
func readOnly(s *Server, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			s.answer(w, http.StatusMethodNotAllowed, invalid("this listener takes GET, not %s", r.Method))
			return
		}
		next.ServeHTTP(w, r)
	})
}
