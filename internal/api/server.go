//go:build linux

package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/journal"
)

// A Node is what the API shows and changes. Its methods are called by several
// goroutines at once. An error that the request is to blame for is an
// *[admin.Error]; any other is the node's own, logged, and answered with 500.
type Node interface {
	Status() admin.Status
	Services(f admin.Filter) ([]admin.Service, error)
	Backends(f admin.Filter) ([]admin.Backend, error)
	Connections(f admin.Filter) (admin.Connections, error)

	// Events and Follow are those of the node's journal.
	Events(f admin.Filter, after uint64) ([]admin.Event, error)
	Follow(f admin.Filter, after uint64) (*journal.Follower, error)

	// What changes something is told by whom, as "uid 1000 (pid 4711, user alice)",
	// and logs what it has done. It refuses what it is given no bounds for, such as
	// a reset of no connections in particular.
	Reload(ctx context.Context, by string) (admin.Reload, error)
	ChangeBackend(service, backend string, c admin.BackendCommand, by string) (admin.BackendResult, error)
	ResetConnections(f admin.Filter, ids []uint64, by string) (int, error)

	// Addresses lists the groups of addresses. Release gives up the group of that
	// name, or with that address, or with "" all groups that the node owns; it
	// returns when they are the other node's, or withdrawn. What has begun goes on
	// when ctx ends.
	Addresses() []admin.AddressGroup
	Release(ctx context.Context, group, by string) (admin.ReleaseResult, error)

	// Metrics answers /metrics; nil: there are none.
	Metrics() http.Handler
}

// Options configures a [Server].
type Options struct {
	Node    Node
	Version string       // of the program, for clients that are of another one
	Group   string       // whose members may change things, by name or number; "": nobody's
	Logger  *slog.Logger // nil discards
}

// The bounds on those who ask. A quarter of each is kept for those who may
// change things.
const (
	maxConnections = 128
	maxRequests    = 32
	maxStreams     = 32

	maxHeader = 16 << 10
	maxBody   = 1 << 20

	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second // of an answer, and of what a stream has to say at once
	idleTimeout   = time.Minute
	changeTimeout = 2 * time.Minute // a reload may have to look up many names

	releaseTimeout = 24 * time.Hour // connections may drain first

	// stopTimeout is how long requests may go on when the server ends.
	stopTimeout = 5 * time.Second
)

// A Server answers requests.
type Server struct {
	node    Node
	version string
	log     *slog.Logger
	rights  atomic.Pointer[rights]
	handler http.Handler

	connections, requests, streams gate

	heartbeat time.Duration   // between two signs of life of a stream
	patience  time.Duration   // with somebody who does not read a stream
	stopping  context.Context // ends the streams
	stop      context.CancelFunc
}

// New makes a Server for the node's socket. It fails if there is no such group.
func New(o Options) (*Server, error) {
	r, err := newRights(o.Group)
	if err != nil {
		return nil, err
	}
	s := newServer(o.Version, o.Logger)
	s.node = o.Node
	s.rights.Store(&r)
	s.handler = s.routes()
	return s, nil
}

func newServer(version string, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		version: version, log: log, heartbeat: admin.Heartbeat, patience: writeTimeout,
		connections: gate{max: maxConnections}, requests: gate{max: maxRequests}, streams: gate{max: maxStreams},
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	return s
}

// Serve answers what comes in on l until ctx ends: streams end then, requests
// may finish within some seconds. It closes l, and can be called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer s.stop()
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // clients that left, and the like
		ConnContext:       withPeer,
	}
	limited := &limitedListener{Listener: l, server: s, refusals: gate{max: maxRefusals}}
	defer limited.wait()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(limited) }()
	select {
	case err := <-served:
		return errors.Join(err, srv.Close())
	case <-ctx.Done():
	}
	s.stop()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(ending); err != nil {
		// Whoever holds it up is cut off, and that is not worth an error of the node.
		s.log.Debug("requests were cut off at the end", "err", err)
		if err := srv.Close(); err != nil {
			s.log.Debug("closing", "err", err)
		}
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
