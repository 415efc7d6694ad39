//go:build linux

package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// A route is one thing to ask. Exactly one of its functions is set.
type route struct {
	method, path string

	read   func(w http.ResponseWriter, r *http.Request) (any, error)
	change func(w http.ResponseWriter, r *http.Request, by string) (any, error)
	serve  http.HandlerFunc // writes the answer itself

	within time.Duration // that a change may take; 0: changeTimeout
}

// table lists everything that can be asked.
func (s *Server) table() []route {
	return []route{
		{method: "GET", path: "/v1/status", read: s.status},
		{method: "GET", path: "/v1/services", read: s.services},
		{method: "GET", path: "/v1/backends", read: s.backends},
		{method: "GET", path: "/v1/addresses", read: s.addresses},
		{method: "GET", path: "/v1/connections", read: s.listConnections},
		{method: "GET", path: "/v1/events", serve: s.events},
		{method: "GET", path: "/v1/watch", serve: s.watch},
		{method: "GET", path: "/metrics", serve: s.metrics},
		{method: "POST", path: "/v1/reload", change: s.reload},
		{method: "POST", path: "/v1/services/{service}/backends/{backend}/{command}", change: s.changeBackend},
		{method: "POST", path: "/v1/connections/reset", change: s.resetConnections},
		{method: "POST", path: "/v1/addresses/{group}/release", change: s.releaseGroup, within: releaseTimeout},
		{method: "POST", path: "/v1/node/release", change: s.releaseNode, within: releaseTimeout},
	}
}

// routes makes the handler of everything.
func (s *Server) routes() http.Handler {
	mux, paths := http.NewServeMux(), http.NewServeMux()
	methods := make(map[string]string) // of a path
	var known []string
	for _, rt := range s.table() {
		mux.Handle(rt.method+" "+rt.path, s.handle(rt))
		if methods[rt.path] == "" {
			paths.Handle(rt.path, http.NotFoundHandler())
		}
		methods[rt.path] = strings.TrimPrefix(methods[rt.path]+", "+rt.method, ", ")
		known = append(known, rt.method+" "+rt.path)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := paths.Handler(r); methods[pattern] != "" {
			w.Header().Set("Allow", methods[pattern])
			s.answer(w, http.StatusMethodNotAllowed, invalid("%s takes %s, not %s", r.URL.Path, methods[pattern], r.Method))
			return
		}
		s.fail(w, r, &admin.Error{
			Code:   admin.CodeUnknown,
			Text:   fmt.Sprintf("this node (version %s) has no path %s", s.version, r.URL.Path),
			Remedy: "it has " + strings.Join(known, ", "),
		})
	})
	return s.guard(mux)
}

// handle makes the handler of one route.
func (s *Server) handle(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := peerOf(r.Context())
		privileged := s.rights.Load().mayChange(p)
		if rt.serve != nil { // it has its own gate
			rt.serve(w, r)
			return
		}
		if !s.requests.enter(privileged) {
			s.fail(w, r, errBusy("requests", maxRequests))
			return
		}
		defer s.requests.leave()
		if rt.read != nil {
			s.finish(w, r)(rt.read(w, r))
			return
		}
		if !privileged {
			s.log.Warn("a change was refused", "by", p.String(), "request", r.URL.Path)
			s.fail(w, r, s.rights.Load().refusal(p))
			return
		}
		within := cmp.Or(rt.within, changeTimeout)
		ctx, cancel := context.WithTimeout(r.Context(), within)
		defer cancel()
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(within + writeTimeout)); err != nil {
			s.log.Debug("the deadline of an answer could not be moved", "err", err)
		}
		by := p.String()
		v, err := rt.change(w, r.WithContext(ctx), by)
		if err != nil { // what was done, the node logs itself
			s.log.Debug("a command was not carried out", "by", by, "request", r.URL.Path, "err", err)
		}
		s.finish(w, r)(v, err)
	})
}

func (s *Server) finish(w http.ResponseWriter, r *http.Request) func(any, error) {
	return func(v any, err error) {
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.answer(w, http.StatusOK, v)
	}
}

func (s *Server) status(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	return complete(s.node.Status()), nil
}

// complete writes what there is none of as an empty list, not as null.
func complete(st admin.Status) admin.Status {
	st.Problems, st.Limits = list(st.Problems), list(st.Limits)
	st.Totals.ByCause = counts(st.Totals.ByCause)
	if st.Sources != nil {
		s := *st.Sources
		s.Ways, s.Unbound = list(s.Ways), counts(s.Unbound)
		st.Sources = &s
	}
	st.Services = completeServices(st.Services)
	st.Addresses = completeAddresses(st.Addresses)
	if st.Pair != nil {
		p := *st.Pair
		p.Differs, p.Strangers = list(p.Differs), counts(p.Strangers)
		st.Pair = &p
	}
	return st
}

func completeAddresses(groups []admin.AddressGroup) []admin.AddressGroup {
	groups = slices.Clone(list(groups))
	for i := range groups {
		g := &groups[i]
		g.Addresses, g.Present, g.Services, g.Track, g.Takeovers = list(g.Addresses), list(g.Present), list(g.Services), list(g.Track), counts(g.Takeovers)
	}
	return groups
}

func counts(m map[string]uint64) map[string]uint64 {
	if m == nil {
		return map[string]uint64{}
	}
	return m
}

func completeServices(services []admin.Service) []admin.Service {
	services = slices.Clone(list(services)) // the node's own stay as they are
	for i := range services {
		services[i].Listen, services[i].Backends = list(services[i].Listen), list(services[i].Backends)
	}
	return services
}

func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

func (s *Server) services(_ http.ResponseWriter, r *http.Request) (any, error) {
	f, err := queryFilter(r, "service", "backend", "client", "limit")
	if err != nil {
		return nil, err
	}
	services, err := s.node.Services(f)
	if err != nil {
		return nil, err
	}
	return admin.Services{Services: completeServices(services)}, nil
}

func (s *Server) addresses(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	return admin.Addresses{Addresses: completeAddresses(s.node.Addresses())}, nil
}

func (s *Server) backends(_ http.ResponseWriter, r *http.Request) (any, error) {
	f, err := queryFilter(r, "service", "backend", "client", "limit")
	if err != nil {
		return nil, err
	}
	backends, err := s.node.Backends(f)
	if err != nil {
		return nil, err
	}
	return admin.Backends{Backends: list(backends)}, nil
}

func (s *Server) listConnections(_ http.ResponseWriter, r *http.Request) (any, error) {
	f, err := queryFilter(r, "service", "backend", "client", "limit")
	if err != nil {
		return nil, err
	}
	c, err := s.node.Connections(f)
	if err != nil {
		return nil, err
	}
	c.Connections = list(c.Connections)
	return c, nil
}

func queryFilter(r *http.Request, known ...string) (admin.Filter, error) {
	q, err := query(r, known...)
	if err != nil {
		return admin.Filter{}, err
	}
	return filter(q)
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	if !s.requests.enter(s.rights.Load().mayChange(peerOf(r.Context()))) {
		s.fail(w, r, errBusy("requests", maxRequests))
		return
	}
	defer s.requests.leave()
	h := s.node.Metrics()
	if h == nil {
		s.fail(w, r, &admin.Error{Code: admin.CodeUnknown, Text: "this node has no metrics"})
		return
	}
	h.ServeHTTP(w, r)
}

// nothing is the body of a command that needs none.
type nothing struct{}

func (s *Server) reload(w http.ResponseWriter, r *http.Request, by string) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	if err := body(w, r, &nothing{}); err != nil {
		return nil, err
	}
	answer, err := s.node.Reload(r.Context(), by)
	if err != nil {
		return nil, err
	}
	answer.Changes = list(answer.Changes)
	return answer, nil
}

var commands = []string{admin.DoDrain, admin.DoResume, admin.DoWeight, admin.DoReset, admin.DoRemove}

// weight is the body of DoWeight.
type weight struct {
	Weight *int `json:"weight"`
}

func (s *Server) changeBackend(w http.ResponseWriter, r *http.Request, by string) (any, error) {
	c := admin.BackendCommand{Do: r.PathValue("command")}
	if !slices.Contains(commands, c.Do) {
		return nil, &admin.Error{
			Code: admin.CodeUnknown, Text: fmt.Sprintf("there is no command %q for a backend", c.Do),
			Remedy: "use one of " + strings.Join(commands, ", "),
		}
	}
	if _, err := query(r); err != nil {
		return nil, err
	}
	if c.Do != admin.DoWeight {
		if err := body(w, r, &nothing{}); err != nil {
			return nil, err
		}
		return s.node.ChangeBackend(r.PathValue("service"), r.PathValue("backend"), c, by)
	}
	var b weight
	if err := body(w, r, &b); err != nil {
		return nil, err
	}
	if b.Weight == nil {
		return nil, invalid(`the weight is missing: {"weight": 20}`)
	}
	c.Weight = *b.Weight
	return s.node.ChangeBackend(r.PathValue("service"), r.PathValue("backend"), c, by)
}

func (s *Server) resetConnections(w http.ResponseWriter, r *http.Request, by string) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	var b admin.Reset
	if err := body(w, r, &b); err != nil {
		return nil, err
	}
	n, err := s.node.ResetConnections(admin.Filter{Service: b.Service, Backend: b.Backend, Client: b.Client}, b.IDs, by)
	if err != nil {
		return nil, err
	}
	return admin.ResetResult{Connections: n}, nil
}

func (s *Server) releaseGroup(w http.ResponseWriter, r *http.Request, by string) (any, error) {
	return s.release(w, r, r.PathValue("group"), by)
}

func (s *Server) releaseNode(w http.ResponseWriter, r *http.Request, by string) (any, error) {
	return s.release(w, r, "", by)
}

func (s *Server) release(w http.ResponseWriter, r *http.Request, group, by string) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	if err := body(w, r, &nothing{}); err != nil {
		return nil, err
	}
	answer, err := s.node.Release(r.Context(), group, by)
	if err != nil {
		return nil, err
	}
	answer.Groups = list(answer.Groups)
	return answer, nil
}
