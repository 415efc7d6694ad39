//go:build linux

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

const (
	headerAPI  = admin.HeaderAPI
	apiVersion = admin.APIVersion
)

// statusOf are the HTTP codes of errors.
var statusOf = map[string]int{
	admin.CodeInvalid:   http.StatusBadRequest,
	admin.CodeForbidden: http.StatusForbidden,
	admin.CodeUnknown:   http.StatusNotFound,
	admin.CodeRefused:   http.StatusConflict,
	admin.CodeBusy:      http.StatusServiceUnavailable,
	admin.CodeInternal:  http.StatusInternalServerError,
}

func invalid(format string, args ...any) *admin.Error {
	return &admin.Error{Code: admin.CodeInvalid, Text: fmt.Sprintf(format, args...)}
}

func errBusy(what string, most int) *admin.Error {
	return &admin.Error{
		Code: admin.CodeBusy, Text: fmt.Sprintf("the node has %d %s to its API already, of which some are kept for those who may change things", most, what),
		Remedy: "try again, or end some of them (ss -xp shows whose they are)",
	}
}

// encode makes the text of an answer: one line. Nobody takes it for HTML, so the
// arrow in "10.0.0.9:4711->10.0.0.21:80" stays readable.
func encode(v any) []byte {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil { // a number that is none, say
		text.Reset()
		_ = e.Encode(&admin.Error{Code: admin.CodeInternal, Text: "the answer cannot be written: " + err.Error()})
	}
	return text.Bytes()
}

// answer writes v with a code.
func (s *Server) answer(w http.ResponseWriter, code int, v any) {
	text := encode(v)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(code)
	if _, err := w.Write(text); err != nil {
		s.log.Debug("an answer was not read", "err", err)
	}
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*admin.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		e = &admin.Error{Code: admin.CodeInternal, Text: "whoever asked has left"} // and does not read it
	default:
		e = &admin.Error{Code: admin.CodeInternal, Text: err.Error()}
		s.log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	code, ok := statusOf[e.Code]
	if !ok {
		code = http.StatusInternalServerError
	}
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	s.answer(w, code, e)
}

// A recorder knows whether an answer has begun.
type recorder struct {
	http.ResponseWriter
	begun bool
}

func (r *recorder) WriteHeader(code int) {
	r.begun = true
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.begun = true
	return r.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// guard is around every handler: whatever a handler does, the process lives, and
// whoever asked gets an answer.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set(headerAPI, apiVersion)
		h.Set(admin.HeaderVersion, s.version)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		rec := &recorder{ResponseWriter: w}
		began := time.Now()
		defer func() {
			p := recover()
			switch {
			case p == nil:
				s.log.Debug("asked", "method", r.Method, "path", r.URL.Path, "took", time.Since(began).String())
				return
			case p == http.ErrAbortHandler: //nolint:errorlint // a panic's value, not an error that was returned
				panic(p)
			}
			s.log.Error("a request met a fault of this program; it carries on", "method", r.Method, "path", r.URL.Path,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if rec.begun {
				panic(http.ErrAbortHandler) // a cut answer must not look complete
			}
			s.answer(rec, http.StatusInternalServerError, &admin.Error{
				Code: admin.CodeInternal, Text: fmt.Sprintf("a fault of the program met %s %s: %v", r.Method, r.URL.Path, p),
				Remedy: "its log has more; please report it",
			})
		}()
		next.ServeHTTP(rec, r)
	})
}
