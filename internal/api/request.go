//go:build linux

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// query reads the query of a request. A key that the path does not know is an
// error, as is one that is given twice: both would be ignored otherwise.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("the query %q cannot be read: %v", r.URL.RawQuery, err)
	}
	for key, values := range q {
		switch {
		case len(known) == 0:
			return nil, invalid("%s takes no query, and %q was given", r.URL.Path, key)
		case !slices.Contains(known, key):
			return nil, invalid("%s does not know the query key %q; it knows %s", r.URL.Path, key, strings.Join(known, ", "))
		case len(values) > 1:
			return nil, invalid("the query key %q is given %d times", key, len(values))
		}
	}
	return q, nil
}

// filter reads the filter of a query, which was read by [query].
func filter(q url.Values) (admin.Filter, error) {
	f := admin.Filter{Service: q.Get("service"), Backend: q.Get("backend"), Client: q.Get("client")}
	if q.Has("limit") {
		n, err := strconv.Atoi(q.Get("limit"))
		if err != nil || n < 1 {
			return f, invalid("limit is %q, want a number from 1; leave it out for all", q.Get("limit"))
		}
		f.Limit = n
	}
	_, err := f.Matcher()
	return f, err
}

// after reads the number of an event.
func after(q url.Values) (uint64, error) {
	n, err := strconv.ParseUint(q.Get("after"), 10, 64)
	if err != nil {
		return 0, invalid("after is %q, want the number of an event (seq), or 0", q.Get("after"))
	}
	return n, nil
}

// flag reads a key that is 1 or 0.
func flag(q url.Values, key string) (bool, error) {
	switch v := q.Get(key); {
	case !q.Has(key), v == "0", v == "false":
		return false, nil
	case v == "1", v == "true":
		return true, nil
	default:
		return false, invalid("%s is %q, want 1 or 0", key, v)
	}
}

// The bounds of a watch.
const (
	minEvery, maxEvery, defaultEvery = 100 * time.Millisecond, time.Hour, time.Second
)

// every reads how often to answer.
func every(q url.Values) (time.Duration, error) {
	if !q.Has("every") {
		return defaultEvery, nil
	}
	d, err := time.ParseDuration(q.Get("every"))
	if err != nil || d < minEvery || d > maxEvery {
		return 0, invalid("every is %q, want a time such as 500ms or 5s, from %s to 1h", q.Get("every"), minEvery)
	}
	return d, nil
}

// body reads the JSON object of a request into a struct. Nothing at all is an
// empty object; a field that the struct does not have is an error.
func body(w http.ResponseWriter, r *http.Request, into any) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return invalid("the body is larger than %d bytes", maxBody)
		}
		return invalid("the body could not be read: %v", err)
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return nil
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return explainBody(r, into, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return invalid("the body goes on after its JSON object, at byte %d", d.InputOffset())
	}
	return nil
}

func explainBody(r *http.Request, into any, err error) error {
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		known := fields(into)
		if len(known) == 0 {
			return invalid("%s takes no body, and the field %s was given", r.URL.Path, name)
		}
		return invalid("%s does not know the field %s; it knows %s", r.URL.Path, name, strings.Join(known, ", "))
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field == "" {
			return invalid("the body is a JSON %s, want an object", e.Value)
		}
		return invalid("the field %q is a %s, want %s", e.Field, e.Value, kind(e.Type))
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return invalid("the body is not JSON: %v, at byte %d", e, e.Offset)
	}
	return invalid("the body is not JSON: %v", err)
}

// kind names a type as JSON does.
func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a text"
	case reflect.Int:
		return "a whole number"
	case reflect.Uint64:
		return "a whole number from 0"
	case reflect.Slice:
		return "a list"
	default:
		return "a " + t.String()
	}
}

// fields names the fields of the struct that into points to.
func fields(into any) []string {
	var names []string
	for f := range reflect.TypeOf(into).Elem().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, fmt.Sprintf("%q", name))
	}
	return names
}
