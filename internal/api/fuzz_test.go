//go:build linux

package api

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/holdfast-net/holdfast/admin"
)

// Whatever is asked, it is answered with JSON, and nothing is the node's fault.
func FuzzRequest(f *testing.F) {
	for _, rt := range (&Server{}).table() {
		f.Add(rt.method, rt.path, "", "")
	}
	f.Add("GET", "/v1/connections", "service=a&client=10.0.0.0%2F8&limit=3", "")
	f.Add("GET", "/v1/events", "after=3&limit=1", "")
	f.Add("POST", "/v1/services/a/backends/b/weight", "", `{"weight": 3}`)
	f.Add("POST", "/v1/addresses/2001:db8::100/release", "", "{}")
	f.Add("POST", "/v1/connections/reset", "", `{"ids": [1], "client": "unix"}`)
	s, err := New(Options{Node: newFakeNode()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, path, query, text string) {
		u, err := url.ParseRequestURI("/" + strings.TrimPrefix(path, "/"))
		if err != nil || strings.Contains(query, "follow") || strings.Contains(path, "watch") || strings.Contains(path, "metrics") {
			return // streams end only with their reader
		}
		u.RawQuery = query
		w := httptest.NewRecorder()
		r := &http.Request{Method: method, URL: u, Host: "node", Body: io.NopCloser(strings.NewReader(text)), Header: http.Header{}}
		r = r.WithContext(withPeer(t.Context(), &limitedConn{})) // root
		s.handler.ServeHTTP(w, r)
		switch {
		case w.Code == http.StatusTemporaryRedirect || w.Code == http.StatusMovedPermanently: // the mux's own, of //v1//status
			return
		case w.Code == http.StatusInternalServerError:
			t.Errorf("%s %s?%s %q: %s", method, path, query, text, w.Body)
		case w.Code == http.StatusOK:
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s %s?%s %q: %s", method, path, query, text, w.Body)
			}
		default:
			e := new(admin.Error)
			if err := json.Unmarshal(w.Body.Bytes(), e); err != nil || e.Code == "" || e.Text == "" || statusOf[e.Code] != w.Code && w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s?%s %q: %d %s", method, path, query, text, w.Code, w.Body)
			}
		}
	})
}
