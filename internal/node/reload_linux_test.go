package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/node"
)

// A running node is one in this process, so that the race detector sees it.
type running struct {
	admin.Client
	site *site
	log  *output
}

// run runs a node with the site's file until the test ends.
func (s *site) run(t *testing.T, events string) *running {
	t.Helper()
	r := &running{Client: admin.Client{Socket: s.socket}, site: s, log: &output{}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- node.Run(ctx, node.Options{File: s.file, EventsFile: events, Err: r.log, Version: "test", Loops: 1, Elector: s.elector})
	}()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(within):
			t.Errorf("the node has not ended within %v: %s", within, r.log)
		}
	})
	until(t, "the node answers", func() bool {
		_, err := r.Client.Status(t.Context())
		return err == nil
	})
	return r
}

// reload must succeed, and say this.
func (r *running) reload(t *testing.T, want ...string) {
	t.Helper()
	did, err := r.Reload(t.Context())
	if err != nil {
		t.Fatalf("%v: %s", err, r.log)
	}
	if len(did.Changes) != len(want) {
		t.Errorf("the reload did %q, want %q", did.Changes, want)
		return
	}
	for i, w := range want {
		if !strings.Contains(did.Changes[i], w) {
			t.Errorf("change %d is %q, want %q", i, did.Changes[i], w)
		}
	}
}

// refused must change nothing, and say this.
func (r *running) refused(t *testing.T, want ...string) {
	t.Helper()
	before, err := r.Client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Reload(t.Context())
	if err == nil {
		t.Fatalf("a reload was taken that must be refused for %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the reload does not say %q: %v", w, err)
		}
	}
	after, err := r.Client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	problem := ""
	for _, p := range after.Problems {
		if p.Code == admin.ProblemReloadRefused {
			problem = p.Text
		}
	}
	c := after.Config
	if c.Digest != before.Config.Digest || c.Refused != before.Config.Refused+1 || c.Reloads != before.Config.Reloads || c.Error == "" || !c.Changed ||
		after.State != "degraded" || !strings.Contains(problem, c.Error) {
		t.Errorf("after the refusal status is %s, %+v, %q; before %+v", after.State, c, problem, before.Config)
	}
	events, err := r.Events(t.Context(), admin.Filter{Limit: 1}, 0)
	if err != nil || len(events) != 1 || events[0].Event != admin.EventReload || events[0].Change.State != "refused" || events[0].Change.Reason == "" {
		t.Errorf("the last event is %+v, %v", events, err)
	}
}

// here is where this process is.
func here(f func() error) error { return f() }

func scrape(t *testing.T, address string) (string, error) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: within}).Get("http://" + address + "/metrics")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return string(text), err
}

func TestReload(t *testing.T) {
	for family, host := range families(t) {
		t.Run(family, func(t *testing.T) {
			s := newSite(t, host)
			s.write(t, "", "")
			r := s.run(t, "")
			c := dial(t, s.listen)
			talk(t, c)
			r.reload(t)

			// Everything but the services.
			one, two := free(t, host), free(t, host)
			s.write(t, "", fmt.Sprintf("metrics: {listen: %q}\nlog: {level: debug, format: json}\nnode: other\n", one))
			r.reload(t, "node: ", "metrics: shown on "+one, "log: level debug, format json")
			if text, err := scrape(t, one); err != nil || !strings.Contains(text, `holdfast_node_info{node="other"} 1`) {
				t.Errorf("%v: %.200s", err, text)
			}
			if !strings.Contains(r.log.String(), `"msg":"the file was taken"`) {
				t.Errorf("the format of the log has not changed: %s", r.log)
			}
			s.write(t, "", fmt.Sprintf("metrics: {listen: %q}\nnode: other\n", two))
			r.reload(t, "metrics: shown on "+two, "log: level info, format text")
			if _, err := scrape(t, two); err != nil {
				t.Error(err)
			}
			if _, err := scrape(t, one); err == nil {
				t.Error("the old address still answers")
			}

			// What cannot be changed, or cannot be had, beside what could.
			extra := free(t, host)
			more := fmt.Sprintf("  - {name: more, listen: %q, health: {none: {}}, backends: [{address: %q}]}\n", extra, s.backend)
			text := func() string {
				b, err := os.ReadFile(s.file)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			good := text()
			offer := func(from, to string) {
				t.Helper()
				changed := strings.Replace(good, from, to, 1) + more
				if from != "" && !strings.Contains(good, from) {
					t.Fatalf("%q is not in the file", from)
				}
				if err := os.WriteFile(s.file, []byte(changed), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			offer("socket: "+s.socket, "socket: "+s.socket+"2")
			r.refused(t, "admin.socket", s.socket+"2", "restart the node")
			offer("runtime: "+s.dir, "runtime: "+s.dir+"/x")
			r.refused(t, "directories.runtime", "restart the node")
			offer(fmt.Sprintf("metrics: {listen: %q}", two), fmt.Sprintf("metrics: {listen: %q}", s.backend))
			r.refused(t, "metrics.listen", s.backend, "in use by")
			offer("admin: {", "admin: {group: no-such-group, ")
			r.refused(t, "admin.group", "no-such-group")
			taken := echoWithin(t, here, host)
			offer(fmt.Sprintf("listen: %q\n", s.listen), fmt.Sprintf("listen: %q\n", taken))
			r.refused(t, taken, "in use by")
			offer(fmt.Sprintf("metrics: {listen: %q}", two), fmt.Sprintf("metrics: {listen: %q}", extra))
			r.refused(t, extra) // two parts of one file want it
			offer("services:", "servces:")
			r.refused(t, "servces", s.file+":", "nothing has changed")
			if err := os.Remove(s.file); err != nil {
				t.Fatal(err)
			}
			r.refused(t, s.file)
			if _, err := scrape(t, two); err != nil {
				t.Errorf("the metrics are gone after refused reloads: %v", err)
			}
			talk(t, c)

			// And then all of it.
			if err := os.WriteFile(s.file, []byte(strings.Replace(good, fmt.Sprintf("metrics: {listen: %q}\n", two), "", 1)+more), 0o644); err != nil {
				t.Fatal(err)
			}
			r.reload(t, "more", "metrics: no longer shown over TCP")
			exchange(t, extra)
			if st, err := r.Client.Status(t.Context()); err != nil || st.State != "well" || st.Config.Error != "" || st.Config.Changed || st.Node != "other" {
				t.Errorf("status: %+v, %v", st, err)
			}
			talk(t, c) // the same connection, through all of it
		})
	}
}

func TestReloadOfAccess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a socket to a group needs root")
	}
	s := newSite(t, "127.0.0.1")
	s.write(t, "", "")
	r := s.run(t, "")
	if fi, err := os.Stat(s.socket); err != nil || fi.Mode().Perm() != 0o660 {
		t.Fatalf("%v, %v", fi, err)
	}
	good, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(access string) {
		t.Helper()
		if err := os.WriteFile(s.file, bytes.Replace(good, []byte("admin: {"), []byte("admin: {"+access), 1), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`mode: "0600", group: "4711", `)
	r.reload(t, "admin: the socket has mode 0600 and group 4711")
	if fi, err := os.Stat(s.socket); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	// What comes after it fails: the socket is as before.
	taken := echoWithin(t, here, "127.0.0.1")
	write(`mode: "0666", `)
	text, err := os.ReadFile(s.file)
	if err == nil {
		err = os.WriteFile(s.file, bytes.Replace(text, []byte(s.listen), []byte(taken), 1), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.refused(t, taken, "in use by")
	if fi, err := os.Stat(s.socket); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("a refused reload has changed the socket: %v, %v", fi, err)
	}
}

// Who rotates the events moves the file away and reloads, whatever the
// configuration is worth.
func TestEventsAreRotated(t *testing.T) {
	s := newSite(t, "127.0.0.1")
	s.write(t, "", "")
	events := filepath.Join(s.dir, "events")
	r := s.run(t, events)
	has := func(path, what string) func() bool {
		return func() bool {
			text, err := os.ReadFile(path)
			return err == nil && strings.Contains(string(text), what)
		}
	}
	exchange(t, s.listen)
	until(t, "the first connection's end is written", has(events, `"event":"connection"`))
	if err := os.Rename(events, events+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.refused(t, s.file)
	exchange(t, s.listen)
	until(t, "the second connection's end is in the new file", has(events, `"event":"connection"`))
	if has(events+".1", `"state":"refused"`)() && has(events, `"state":"refused"`)() {
		t.Error("one event is in both files")
	}
}

// Many ask for a reload at once, while others look.
func TestReloadsAtOnce(t *testing.T) {
	s := newSite(t, "127.0.0.1")
	s.write(t, "", "")
	r := s.run(t, "")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			c := admin.Client{Socket: s.socket}
			for range 10 {
				if _, err := c.Reload(t.Context()); err != nil {
					t.Error(err)
				}
				if _, err := c.Status(t.Context()); err != nil {
					t.Error(err)
				}
				if i == 0 {
					exchange(t, s.listen)
				}
			}
		})
	}
	wg.Wait()
	if st, err := r.Client.Status(t.Context()); err != nil || st.Config.Reloads != 40 || st.Config.Refused != 0 {
		t.Errorf("%+v, %v", st.Config, err)
	}
}

// TestElectorComesLater has a reload bring the first group when the elector cannot
// be started: that is a problem, and it is tried again until it can.
func TestElectorComesLater(t *testing.T) {
	s := newSite(t, "127.0.0.1")
	program := filepath.Join(s.dir, "program")
	s.elector = []string{program, "elector"}
	s.write(t, "", "")
	r := s.run(t, "")
	s.write(t, "", "addresses: [{name: front, interface: nowhere0, addresses: [192.0.2.100/24]}]\n")
	r.reload(t, "addresses front added", "addresses: not in force")
	st, err := r.Client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Elector == nil || st.Elector.State != "down" || !slices.ContainsFunc(st.Problems, func(p admin.Problem) bool {
		return p.Code == admin.ProblemElectorDown && strings.Contains(p.Text, program)
	}) {
		t.Errorf("without an elector status says %+v, %+v", st.Elector, st.Problems)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	until(t, "the elector is there", func() bool {
		st, err = r.Client.Status(t.Context())
		return err == nil && st.Elector != nil && st.Elector.State == "up" && len(st.Addresses) == 1
	})
	if slices.ContainsFunc(st.Problems, func(p admin.Problem) bool { return p.Code == admin.ProblemElectorDown }) {
		t.Errorf("with an elector the problems are %+v", st.Problems)
	}
	r.reload(t)
}
