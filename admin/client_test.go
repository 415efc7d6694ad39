package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// answers serves h on a unix socket for the length of a test.
func answers(t *testing.T, h http.Handler) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan error)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return &Client{Socket: path}
}

// node answers as a node does.
func node(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(HeaderAPI, APIVersion)
		w.Header().Set(HeaderVersion, "1.2.3")
		h(w, r)
	})
}

func TestSocketPath(t *testing.T) {
	t.Setenv(SocketVariable, "")
	if got := new(Client).Path(); got != DefaultSocket {
		t.Errorf("by default: %s", got)
	}
	t.Setenv(SocketVariable, "/run/other.sock")
	if got := new(Client).Path(); got != "/run/other.sock" {
		t.Errorf("by the environment: %s", got)
	}
	if got := (&Client{Socket: "/x"}).Path(); got != "/x" {
		t.Errorf("by the field: %s", got)
	}
}

// Why there is no answer, in one line, with what to do.
func TestNoAnswer(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	echo := filepath.Join(dir, "echo")
	el, err := net.Listen("unix", echo)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := el.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 4)
			_, _ = io.ReadFull(c, buffer)
			_, _ = c.Write([]byte("220 who are you\r\n"))
			c.Close()
		}
	}()
	defer func() { el.Close(); <-done }()
	other := answers(t, http.NotFoundHandler())
	newer := answers(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(HeaderAPI, "v2")
		w.Header().Set(HeaderVersion, "9.0.0")
	}))
	leaver := answers(t, node(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	for _, tt := range []struct {
		socket, want string
		err          error
	}{
		{filepath.Join(dir, "none"), "there is no such socket; is the node running? (systemctl status holdfast); --socket PATH or HOLDFAST_SOCKET for another one", os.ErrNotExist},
		{stale, "nobody listens there any more; is the node running?", syscall.ECONNREFUSED},
		{file, "", nil}, // the words differ between systems
		{filepath.Join(dir, strings.Repeat("x", 200)), "bytes, and that of a socket may have 103", nil},
		{echo, "", nil},
		{other.Socket, "what answers there is not a node", nil},
		{newer.Socket, "the node there (version 9.0.0) speaks the API v2, and this program v1; use the program that the node runs", nil},
		{leaver.Socket, "it has ended the connection without an answer; is it stopping?", io.EOF},
	} {
		_, err := (&Client{Socket: tt.socket}).Status(t.Context())
		e, ok := errors.AsType[*UnreachableError](err)
		if !ok || e.Socket != tt.socket || !strings.HasPrefix(err.Error(), "no node answers at "+tt.socket+": ") || strings.Contains(err.Error(), "\n") ||
			!strings.Contains(err.Error(), tt.want) || e.Remedy == "" {
			t.Errorf("%s: %v\nwant %s", tt.socket, err, tt.want)
		}
		if tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%v does not wrap %v", err, tt.err)
		}
	}
}

func TestContextEndsACall(t *testing.T) {
	release := make(chan struct{})
	c := answers(t, node(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	}))
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "it did not answer in time; look at its log") {
		t.Errorf("a deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancellation: %v", err)
	}
}

func TestAnswersThatAreNoGood(t *testing.T) {
	code, text := 200, ""
	c := answers(t, node(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = io.WriteString(w, text) }))
	for _, tt := range []struct {
		code       int
		text, want string
	}{
		{200, "{", "the answer of the node to GET /v1/status: unexpected EOF"},
		{500, "oops\n", "the node answered GET /v1/status with 500 Internal Server Error: oops"},
		{404, `{"code":"unknown","error":"this node (version 0.1) has no path /v1/x","remedy":"it has others"}`, "this node (version 0.1) has no path /v1/x: it has others"},
	} {
		code, text = tt.code, tt.text
		if _, err := c.Status(t.Context()); err == nil || err.Error() != tt.want {
			t.Errorf("%d %s: %v, want %s", tt.code, tt.text, err, tt.want)
		}
	}
	if _, err := c.ChangeBackend(t.Context(), "redis", "", BackendCommand{Do: DoDrain}); err == nil {
		t.Error("a backend without a name was asked for")
	}
}

// A stream that is cut is not taken for one that ended.
func TestStreamIsCut(t *testing.T) {
	cut := false
	c := answers(t, node(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, ": hello\n\nid: 1\ndata: {\"seq\":1,\ndata: \"event\":\"node\"}\n\nretry: 5\n\n")
		if cut {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	read := func() (seen int, last error) {
		for e, err := range c.Follow(t.Context(), Filter{}, 0) {
			if err != nil {
				last = err
				continue
			}
			if seen++; e.Seq != 1 || e.Event != EventNode {
				t.Errorf("read %+v", e)
			}
		}
		return seen, last
	}
	if n, err := read(); n != 1 || err != nil {
		t.Errorf("an end: %d, %v", n, err)
	}
	cut = true
	if n, err := read(); n != 1 || err == nil || !strings.Contains(err.Error(), "broke the stream off") {
		t.Errorf("a cut: %d, %v", n, err)
	}
	for _, err := range (&Client{Socket: filepath.Join(t.TempDir(), "none")}).Watch(t.Context(), 0) {
		if _, ok := errors.AsType[*UnreachableError](err); !ok {
			t.Errorf("nobody there: %v", err)
		}
	}
}

// A node that says nothing any more, not even a heartbeat, is noticed.
func TestSilentStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		c := &Client{Socket: "/s"}
		c.once.Do(func() {})
		c.http = &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			context.AfterFunc(req.Context(), func() { r.CloseWithError(context.Cause(req.Context())) })
			return &http.Response{StatusCode: 200, Header: http.Header{HeaderAPI: {APIVersion}}, Body: r}, nil
		})}
		go func() {
			for range 3 {
				time.Sleep(Heartbeat)
				_, _ = io.WriteString(w, "data: {}\n\n")
			}
		}()
		began := time.Now()
		n := 0
		for _, err := range c.Watch(t.Context(), 0) {
			if err == nil {
				n++
				time.Sleep(2 * silence) // the reader's own time does not count
				continue
			}
			if e, ok := errors.AsType[*UnreachableError](err); !ok || !strings.Contains(e.Why, "not even a heartbeat in 1m0s") {
				t.Errorf("a silent node: %v", err)
			}
		}
		if want := Heartbeat + 3*2*silence + silence; n != 3 || time.Since(began) != want {
			t.Errorf("%d answers, given up after %v, want %v", n, time.Since(began), want)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func FuzzReadStream(f *testing.F) {
	f.Add("data: {}\n\n", 1)
	f.Add(": x\n\ndata:a\ndata: b\r\n\n", 3)
	f.Fuzz(func(t *testing.T, text string, _ int) {
		_ = readStream(strings.NewReader(text), func() {}, func(data []byte) error {
			if len(data) == 0 || data[len(data)-1] != '\n' {
				t.Errorf("%q gives the event %q", text, data)
			}
			return nil
		})
	})
}
