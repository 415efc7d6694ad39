package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// HeaderVersion and HeaderAPI are in every answer of a node: the version of the
// program, and of the API that it speaks.
const (
	HeaderVersion = "Holdfast-Version"
	HeaderAPI     = "Holdfast-Api"

	APIVersion = "v1"
)

// A Client asks a running node. The zero value asks the one at HOLDFAST_SOCKET,
// or else at [DefaultSocket]. Its methods may be called by several goroutines;
// it keeps no connection open between two calls, and must not be copied after
// the first.
//
// A node that refuses answers with an *[Error]; where none answers at all, the
// error is an *[UnreachableError]. What a node answers with is bounded by the
// context alone.
type Client struct {
	// Socket is the path of the node's socket.
	Socket string

	once sync.Once
	http *http.Client
}

// UnreachableError says why no node answers at a socket, and what to do.
type UnreachableError struct {
	Socket string
	Why    string
	Remedy string
	Err    error // what the system said; nil where something answered that is no node
}

func (e *UnreachableError) Error() string {
	text := fmt.Sprintf("no node answers at %s: %s", e.Socket, e.Why)
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Unwrap returns what the system said.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Path returns the path of the socket that is asked.
func (c *Client) Path() string {
	switch {
	case c.Socket != "":
		return c.Socket
	case os.Getenv(SocketVariable) != "":
		return os.Getenv(SocketVariable)
	default:
		return DefaultSocket
	}
}

// Status returns the node in one answer.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status", nil)
}

// Services lists the services that fit f: its Service, Backend (those that have
// it) and Limit.
func (c *Client) Services(ctx context.Context, f Filter) ([]Service, error) {
	s, err := get[Services](ctx, c, "/v1/services", f.query())
	return s.Services, err
}

// Addresses lists the groups of addresses.
func (c *Client) Addresses(ctx context.Context) ([]AddressGroup, error) {
	a, err := get[Addresses](ctx, c, "/v1/addresses", nil)
	return a.Addresses, err
}

// Release gives up the group that has this name, or this address: the other node
// takes it over; without one everybody is told, and then it is withdrawn.
func (c *Client) Release(ctx context.Context, group string) (ReleaseResult, error) {
	if group == "" {
		return ReleaseResult{}, &Error{Code: CodeInvalid, Text: "an address or the name of a group is needed"}
	}
	return call[ReleaseResult](ctx, c, http.MethodPost, "/v1/addresses/"+segment(group)+"/release", nil, struct{}{})
}

// ReleaseNode gives up all groups of the node, as Release does one.
func (c *Client) ReleaseNode(ctx context.Context) (ReleaseResult, error) {
	return call[ReleaseResult](ctx, c, http.MethodPost, "/v1/node/release", nil, struct{}{})
}

// Backends lists the backends that fit f: its Service, Backend and Limit.
func (c *Client) Backends(ctx context.Context, f Filter) ([]Backend, error) {
	b, err := get[Backends](ctx, c, "/v1/backends", f.query())
	return b.Backends, err
}

// Connections lists the connections that fit f.
func (c *Client) Connections(ctx context.Context, f Filter) (Connections, error) {
	return get[Connections](ctx, c, "/v1/connections", f.query())
}

// Events lists the events that fit f and that the node remembers, of those
// behind the one with the number after; 0 is before all. The oldest is first.
func (c *Client) Events(ctx context.Context, f Filter, after uint64) ([]Event, error) {
	q := f.query()
	if after > 0 {
		q.Set("after", strconv.FormatUint(after, 10))
	}
	e, err := get[Events](ctx, c, "/v1/events", q)
	return e.Events, err
}

// Metrics writes the node's metrics to w, as Prometheus reads them.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	res, err := c.do(ctx, http.MethodGet, "/metrics", nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("the node's metrics: %w", err)
	}
	return nil
}

// Reload makes the node take its file. An *[Error] with Config says what is
// wrong with the file; nothing has changed then.
func (c *Client) Reload(ctx context.Context) (Reload, error) {
	return call[Reload](ctx, c, http.MethodPost, "/v1/reload", nil, struct{}{})
}

// ChangeBackend changes a backend by hand.
func (c *Client) ChangeBackend(ctx context.Context, service, backend string, command BackendCommand) (BackendResult, error) {
	if service == "" || backend == "" || command.Do == "" {
		return BackendResult{}, &Error{Code: CodeInvalid, Text: "a service, a backend and a command are needed"}
	}
	path := "/v1/services/" + segment(service) + "/backends/" + segment(backend) + "/" + segment(command.Do)
	var body any = struct{}{}
	if command.Do == DoWeight {
		body = struct {
			Weight int `json:"weight"`
		}{command.Weight}
	}
	return call[BackendResult](ctx, c, http.MethodPost, path, nil, body)
}

// ResetConnections tells both ends of the connections that fit r.
func (c *Client) ResetConnections(ctx context.Context, r Reset) (ResetResult, error) {
	return call[ResetResult](ctx, c, http.MethodPost, "/v1/connections/reset", nil, r)
}

// segment is a name as a part of a path.
func segment(name string) string {
	if name == "." || name == ".." { // which mean something in a path
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

// query is the filter in a URL.
func (f Filter) query() url.Values {
	q := make(url.Values)
	for key, value := range map[string]string{"service": f.Service, "backend": f.Backend, "client": f.Client} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if f.Limit != 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return q
}

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, q, nil)
}

func call[T any](ctx context.Context, c *Client, method, path string, q url.Values, body any) (answer T, err error) {
	res, err := c.do(ctx, method, path, q, body)
	if err != nil {
		return answer, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("the answer of the node to %s %s: %w", method, path, err)
	}
	return answer, nil
}

// do asks, and returns an answer of 200. The caller closes its body.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body any) (*http.Response, error) {
	c.once.Do(c.prepare)
	u := url.URL{Scheme: "http", Host: "node"}
	var err error
	if u.Path, err = url.PathUnescape(path); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	u.RawPath, u.RawQuery = path, q.Encode()
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
		text = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), text)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if err := c.refused(res, method, path); err != nil {
		res.Body.Close()
		return nil, err
	}
	return res, nil
}

// prepare makes the HTTP client. It dials anew for each call, which costs some
// 50 us and leaves no connection behind that somebody must close.
func (c *Client) prepare() {
	c.http = &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", c.Path())
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// explain says why there is no answer.
func (c *Client) explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.DeadlineExceeded) {
			return &UnreachableError{Socket: c.Path(), Why: "it did not answer in time", Remedy: "look at its log (journalctl -u holdfast)", Err: cause}
		}
		return cause
	}
	e := &UnreachableError{Socket: c.Path(), Err: err}
	const another = "--socket PATH or " + SocketVariable + " for another one"
	operation, dialing := errors.AsType[*net.OpError](err)
	switch {
	case dialing && operation.Op != "dial":
		e.Why, e.Remedy = "it has ended the connection without an answer", "is it stopping? (systemctl status holdfast)"
	case errors.Is(err, fs.ErrNotExist):
		e.Why, e.Remedy = "there is no such socket", "is the node running? (systemctl status holdfast); "+another
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Why, e.Remedy = "nobody listens there any more", "is the node running? (systemctl status holdfast); "+another
	case errors.Is(err, fs.ErrPermission):
		e.Why, e.Remedy = explainPermission(e.Socket)
	case errors.Is(err, syscall.ENOTSOCK), errors.Is(err, syscall.EPROTOTYPE):
		e.Why, e.Remedy = "that is not the socket of a node", another
	case errors.Is(err, syscall.EAGAIN):
		e.Why, e.Remedy = "too many wait there already", "look at its log (journalctl -u holdfast)"
	case len(e.Socket) > maxSocketPath:
		e.Why, e.Remedy = fmt.Sprintf("the path has %d bytes, and that of a socket may have %d", len(e.Socket), maxSocketPath), another
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Why, e.Remedy = "it has ended the connection without an answer", "is it stopping? (systemctl status holdfast)"
	case strings.Contains(err.Error(), "malformed HTTP"):
		e.Why, e.Remedy = "what answers there is not a node", another
	default:
		e.Why, e.Remedy = err.Error(), another
		if u, ok := errors.AsType[*url.Error](err); ok {
			e.Why = u.Err.Error()
		}
	}
	return e
}

// maxSocketPath is what fits into the kernel's structure everywhere.
const maxSocketPath = 103

// explainPermission says whom the socket is for.
func explainPermission(path string) (why, remedy string) {
	me := "you are uid " + strconv.Itoa(os.Getuid())
	fi, err := os.Stat(path)
	if err != nil {
		return "permission denied; " + me, "run as root, or as a user who may look into its directory"
	}
	why = fmt.Sprintf("permission denied; %s, and the socket has the mode %04o", me, fi.Mode().Perm())
	remedy = "run as root"
	if owner, group, ok := ownerOf(fi); ok {
		why += fmt.Sprintf(", the owner %s and the group %s", owner, group)
		if owner != "root" {
			remedy += ", or as " + owner
		}
		if fi.Mode().Perm()&0o020 != 0 {
			remedy += ", or as a member of the group " + group
		}
	}
	return why, remedy
}

// refused makes an error of every answer but 200.
func (c *Client) refused(res *http.Response, method, path string) error {
	version := res.Header.Get(HeaderAPI)
	switch {
	case version == "":
		return &UnreachableError{Socket: c.Path(), Why: "what answers there is not a node", Remedy: "--socket PATH or " + SocketVariable + " for another one"}
	case version != APIVersion:
		return &UnreachableError{
			Socket: c.Path(), Why: fmt.Sprintf("the node there (version %s) speaks the API %s, and this program %s", res.Header.Get(HeaderVersion), version, APIVersion),
			Remedy: "use the program that the node runs",
		}
	case res.StatusCode == http.StatusOK:
		return nil
	}
	const most = 1 << 20
	text, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return fmt.Errorf("the answer of the node to %s %s: %w", method, path, err)
	}
	e := new(Error)
	if err := json.Unmarshal(text, e); err != nil || e.Text == "" {
		return &Error{Code: CodeInternal, Text: fmt.Sprintf("the node answered %s %s with %s: %.200s", method, path, res.Status, bytes.TrimSpace(text))}
	}
	return e
}

// silence bounds how long a stream may be without even a heartbeat.
const silence = 4 * Heartbeat

// Heartbeat is how often a node writes to a stream on which nothing happens.
const Heartbeat = 15 * time.Second
