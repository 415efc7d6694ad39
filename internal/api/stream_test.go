//go:build linux

package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/journal"
	"github.com/holdfast-net/holdfast/relay"
)

func change(service string) admin.Event {
	return admin.Event{Event: admin.EventBackend, Service: service, Backend: "r1", Change: &admin.Change{State: "down"}}
}

// numbers are those of events; a loss is its count, negative.
func numbers(events []admin.Event) []int {
	list := []int{}
	for _, e := range events {
		if e.Event == admin.EventLost {
			list = append(list, -int(e.Count))
			continue
		}
		list = append(list, int(e.Seq))
	}
	return list
}

// streams waits for a number of streams.
func streams(r *running, n int) func() bool {
	return func() bool { r.streams.mu.Lock(); defer r.streams.mu.Unlock(); return r.streams.now == n }
}

func TestEventList(t *testing.T) {
	r := run(t, nil)
	for i := range 6 {
		r.node.journal.Add(change([]string{"redis", "pg"}[i%2]))
	}
	for _, tt := range []struct {
		filter admin.Filter
		after  uint64
		want   []int
	}{
		{admin.Filter{}, 0, []int{1, 2, 3, 4, 5, 6}},
		{admin.Filter{Service: "pg", Limit: 2}, 0, []int{4, 6}},
		{admin.Filter{}, 4, []int{5, 6}},
		{admin.Filter{}, 6, []int{}},
		{admin.Filter{Limit: 1}, 100, []int{0, 6}},
	} {
		events, err := r.client.Events(t.Context(), tt.filter, tt.after)
		if err != nil || !slices.Equal(numbers(events), tt.want) {
			t.Errorf("%+v after %d: %v, %v; want %v", tt.filter, tt.after, numbers(events), err, tt.want)
		}
	}
	if _, _, answer := r.ask(t, "GET", "/v1/events?after=6", ""); answer != `{"events":[]}`+"\n" {
		t.Errorf("no event is %s", answer)
	}
}

// A stream gives what comes, and ends with the node, cleanly.
func TestFollow(t *testing.T) {
	r := run(t, nil)
	for range 3 {
		r.node.journal.Add(change("redis"))
	}
	for _, tt := range []struct {
		filter admin.Filter
		after  uint64
		want   []int
	}{
		{admin.Filter{Limit: 2}, 0, []int{2, 3}},
		{admin.Filter{}, 1, []int{2, 3}},
		{admin.Filter{}, 100, []int{0, 1, 2, 3}},
	} {
		var got []admin.Event
		for e, err := range r.client.Follow(t.Context(), tt.filter, tt.after) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, e); len(got) == len(tt.want) {
				break
			}
		}
		if !slices.Equal(numbers(got), tt.want) {
			t.Errorf("%+v after %d: %v, want %v", tt.filter, tt.after, numbers(got), tt.want)
		}
	}
	eventually(t, "nobody follows any more", streams(r, 0))
	got := make(chan admin.Event)
	ended := make(chan error, 1)
	go func() {
		defer close(got)
		for e, err := range r.client.Follow(t.Context(), admin.Filter{Service: "pg"}, 0) {
			if err != nil {
				ended <- err
				return
			}
			got <- e
		}
		ended <- nil
	}()
	eventually(t, "somebody follows", streams(r, 1))
	r.node.journal.Add(change("redis"))
	r.node.journal.Add(change("pg"))
	if e := <-got; e.Seq != 5 || e.Service != "pg" || e.State != "down" {
		t.Errorf("followed: %+v", e)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if e, open := <-got; open {
		t.Errorf("then came %+v", e)
	}
	if err := <-ended; err != nil {
		t.Errorf("a node that stops ends the stream with %v", err)
	}
}

// What the stream looks like: an id to come back with, comments in between.
func TestStreamText(t *testing.T) {
	r := run(t, func(s *Server) { s.heartbeat = 5 * time.Millisecond })
	r.node.journal.Add(change("redis"))
	began := fmt.Sprint(r.node.journal.Began().UnixMilli())
	read := func(lastID, until string) string {
		t.Helper()
		c, err := net.Dial("unix", r.path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /v1/events?follow=1&after=0 HTTP/1.1\r\nHost: node\r\nLast-Event-ID: %s\r\n\r\n", lastID)
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for lines := bufio.NewReader(c); !strings.Contains(text.String(), until); {
			line, err := lines.ReadString('\n')
			text.WriteString(line)
			if err != nil {
				t.Fatalf("%q is not in\n%s", until, text.String())
			}
		}
		return text.String()
	}
	text := read("", "\n:\n")
	for _, want := range []string{"Content-Type: text/event-stream\r\n", "Cache-Control: no-store", "id: 1@" + began + "\n", `data: {"seq":1,"event":"backend",`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if text := read("1@"+began, "\n:\n"); strings.Contains(text, "data:") {
		t.Errorf("whoever has seen everything gets\n%s", text)
	}
	if text := read("1", "\n:\n"); strings.Contains(text, "data:") {
		t.Errorf("whoever has seen everything, and gives a number, gets\n%s", text)
	}
	// One who comes back from an earlier life of the node, with a number that was given anew.
	if text := read("1@12345", `"seq":1`); !strings.Contains(text, `data: {"event":"lost"`) {
		t.Errorf("whoever has seen events of an earlier life gets\n%s", text)
	}
	read("x", "Last-Event-ID is \\\"x\\\"")
}

func TestWatch(t *testing.T) {
	r := run(t, nil)
	n := 0
	for st, err := range r.client.Watch(t.Context(), minEvery) {
		if err != nil || st.Node != "a" || st.Services == nil {
			t.Fatalf("%+v, %v", st, err)
		}
		if n++; n == 2 {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range r.client.Watch(ctx, 0) {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("the end of the context gives %v", last)
	}
	for _, err := range r.client.Watch(t.Context(), time.Millisecond) {
		last = err
	}
	if e, ok := errors.AsType[*admin.Error](last); !ok || e.Code != admin.CodeInvalid {
		t.Errorf("a watch too fast gives %v", last)
	}
}

// A reader that stops reading holds up nobody, and learns how much it has
// missed; one that never reads again is cut off, and does not take the cut for
// an end.
func TestSlowReader(t *testing.T) {
	r := run(t, nil)
	r.node.journal = journal.New(journal.Options{Connections: 100})
	c, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /v1/events?follow=1 HTTP/1.1\r\nHost: node\r\n\r\n")
	eventually(t, "somebody follows", streams(r, 1))
	const flood = 20000 // some 8 MB: far more than a socket holds
	for i := range flood {
		r.node.journal.AddEnd(relay.End{ID: uint64(i), Service: "redis", Client: "10.0.0.1:1", Cause: relay.CauseClosed})
	}
	if _, err := r.client.Status(t.Context()); err != nil {
		t.Errorf("others are held up: %v", err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(res.Body)
	var lost bool
	for lines.Scan() {
		lost = lost || strings.Contains(lines.Text(), `"event":"lost"`)
		if strings.Contains(lines.Text(), fmt.Sprintf(`"seq":%d,`, flood)) {
			break
		}
	}
	if !lost || lines.Err() != nil {
		t.Errorf("it was told of a loss: %v; %v", lost, lines.Err())
	}
}

func TestReaderThatNeverReads(t *testing.T) {
	r := run(t, func(s *Server) { s.patience = 300 * time.Millisecond })
	c, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /v1/events?follow=1&after=0 HTTP/1.1\r\nHost: node\r\n\r\n")
	eventually(t, "somebody follows", streams(r, 1))
	for i := range 5000 {
		r.node.journal.AddEnd(relay.End{ID: uint64(i), Service: "redis", Client: "10.0.0.1:1", Detail: strings.Repeat("x", 500)})
	}
	eventually(t, "it is cut off", streams(r, 0))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
	}
	if lines.Err() == nil {
		t.Error("the cut looks like an end")
	}
}

// There are only so many streams, and the last are for those who may change things.
func TestTooManyStreams(t *testing.T) {
	r := run(t, func(s *Server) { s.streams.max = 1 })
	for _, err := range r.client.Watch(t.Context(), time.Hour) {
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range r.client.Follow(t.Context(), admin.Filter{}, 0) {
			if e, ok := errors.AsType[*admin.Error](err); !ok || e.Code != admin.CodeBusy {
				t.Errorf("a stream too many: %v", err)
			}
		}
		break
	}
}
