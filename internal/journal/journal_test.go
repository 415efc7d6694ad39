//go:build linux

package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func anEnd(id uint64) relay.End {
	return relay.End{
		ID: id, Service: "redis", Client: fmt.Sprintf("10.0.0.%d:4000", id%4), Backend: "r1", Began: epoch, Age: 1500 * time.Millisecond,
		BytesIn: 1, BytesOut: 2, Undelivered: 3, Cause: relay.CauseBackendDown, By: relay.ByRelay,
		ToldClient: relay.ToldRST, ToldBackend: relay.ToldRST, Attempts: 1, Detail: "why",
	}
}

func aChange(service string) admin.Event {
	return admin.Event{Event: admin.EventBackend, Time: epoch, Service: service, Backend: "r1", Change: &admin.Change{State: "down", Reason: "why"}}
}

// seqs are the numbers of events; a loss is its count, negative.
func seqs(events []admin.Event) []int {
	var list []int
	for _, e := range events {
		if e.Event == admin.EventLost {
			list = append(list, -int(e.Count))
			continue
		}
		list = append(list, int(e.Seq))
	}
	return list
}

func read(t *testing.T, j *Journal, f admin.Filter, after uint64) []int {
	t.Helper()
	events, err := j.Read(f, after)
	if err != nil {
		t.Fatal(err)
	}
	return seqs(events)
}

// The names of the fields are a promise.
func TestLines(t *testing.T) {
	j := New(Options{})
	j.AddEnd(anEnd(7))
	j.Add(admin.Event{
		Event: admin.EventBackend, Time: epoch, Service: "redis", Backend: "r1",
		Change: &admin.Change{Address: "[::1]:6379", State: "down", Reason: "read a->b: <why> & how"},
	})
	f, err := j.Follow(admin.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what is there is written all the same
	var out bytes.Buffer
	if err := Lines(ctx, f, &out); err != nil {
		t.Fatal(err)
	}
	const want = `{"seq":1,"event":"connection","time":"2026-01-02T03:04:06.5Z","service":"redis","backend":"r1","id":7,"client":"10.0.0.3:4000",` +
		`"engine":"relay","cause":"backend_down","by":"holdfast","age":1.5,"bytes_in":1,"bytes_out":2,"undelivered":3,` +
		`"told_client":"rst","told_backend":"rst","attempts":1,"detail":"why"}` + "\n" +
		`{"seq":2,"event":"backend","time":"2026-01-02T03:04:05Z","service":"redis","backend":"r1","address":"[::1]:6379","state":"down","reason":"read a->b: <why> & how"}` + "\n"
	if out.String() != want {
		t.Errorf("got  %s\nwant %s", out.String(), want)
	}
	var lost admin.Event
	if err := json.Unmarshal(LostLine(3), &lost); err != nil || lost.Event != admin.EventLost || lost.Count != 3 || lost.Time.IsZero() {
		t.Errorf("the line of a loss is %s", LostLine(3))
	}
	full := errors.New("full")
	j.AddEnd(anEnd(8))
	if err := Lines(t.Context(), f, failing{full}); !errors.Is(err, full) {
		t.Errorf("Lines to a writer that fails: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestRead(t *testing.T) {
	j := New(Options{Connections: 1000, Changes: 1000})
	for i := range 300 { // 1, 3, 5: ends of r1; 2, 4, 6: changes, of redis and pg in turn
		j.AddEnd(anEnd(uint64(i)))
		j.Add(aChange([]string{"redis", "pg"}[i%2]))
	}
	j.Add(admin.Event{Event: admin.EventNode, Change: &admin.Change{State: "stopping"}})
	all := read(t, j, admin.Filter{}, 0)
	if len(all) != 601 || !slices.IsSorted(all) || all[0] != 1 || all[600] != 601 {
		t.Errorf("everything is %v", all)
	}
	for _, tt := range []struct {
		filter admin.Filter
		after  uint64
		want   []int
	}{
		{admin.Filter{Limit: 3}, 0, []int{599, 600, 601}},
		{admin.Filter{}, 598, []int{599, 600, 601}},
		{admin.Filter{}, 601, nil},
		{admin.Filter{Service: "pg", Limit: 2}, 0, []int{596, 600}},
		{admin.Filter{Service: "pg"}, 590, []int{592, 596, 600}},
		{admin.Filter{Client: "10.0.0.0/31", Limit: 4}, 0, []int{585, 587, 593, 595}},
		{admin.Filter{Client: "10.0.0.3:4000", Limit: 1}, 0, []int{599}},
		{admin.Filter{Service: "none"}, 0, nil},
	} {
		if got := read(t, j, tt.filter, tt.after); !slices.Equal(got, tt.want) {
			t.Errorf("%+v after %d: %v, want %v", tt.filter, tt.after, got, tt.want)
		}
	}
	if _, err := j.Read(admin.Filter{Client: "x"}, 0); err == nil {
		t.Error("a filter that cannot be understood was taken")
	}
	if _, err := j.Follow(admin.Filter{Client: "x"}, 0); err == nil {
		t.Error("a filter that cannot be understood was followed")
	}
}

// A flood of ends pushes out ends, and nothing else.
func TestTwoRings(t *testing.T) {
	j := New(Options{Connections: 10, Changes: 2})
	j.Add(aChange("redis"))
	for i := range 100 {
		j.AddEnd(anEnd(uint64(i)))
	}
	j.Add(aChange("redis"))
	if got, want := read(t, j, admin.Filter{}, 0), []int{1, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101, 102}; !slices.Equal(got, want) {
		t.Errorf("remembered are %v, want %v", got, want)
	}
	for after, want := range map[uint64][]int{
		50:  {-41, 101, 102},
		91:  {101, 102},
		101: {102},
		102: nil,
		200: {0, 101, 102},
	} {
		if got := read(t, j, admin.Filter{Limit: 2}, after); !slices.Equal(got, want) {
			t.Errorf("after %d: %v, want %v", after, got, want)
		}
	}
	if j.Last() != 102 {
		t.Errorf("the last is %d", j.Last())
	}
}

func TestTextsAreBounded(t *testing.T) {
	j := New(Options{})
	e, c := anEnd(1), aChange("redis")
	e.Detail, c.Reason = strings.Repeat("ä", 10000), strings.Repeat("x", 10000)
	j.AddEnd(e)
	j.Add(c)
	if len(c.Reason) != 10000 {
		t.Error("the caller's event was changed")
	}
	events, err := j.Read(admin.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(events[0].Detail); n > maxText+3 || !strings.HasSuffix(events[0].Detail, "ä...") {
		t.Errorf("a text of %d bytes is kept: %q", n, events[0].Detail)
	}
	if n := len(events[1].Reason); n != maxText+3 {
		t.Errorf("a reason of %d bytes is kept", n)
	}
}

func TestFollow(t *testing.T) {
	j := New(Options{Connections: 10, Changes: 2})
	for i := range 20 { // 11 to 20 are remembered
		j.AddEnd(anEnd(uint64(i)))
	}
	for _, tt := range []struct {
		name   string
		filter admin.Filter
		after  uint64
		want   []int // with one more that comes then
	}{
		{"from the beginning", admin.Filter{}, 0, []int{11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21}},
		{"from now on", admin.Filter{}, Now, []int{21}},
		{"from now on, and the newest", admin.Filter{Limit: 2}, Now, []int{19, 20, 21}},
		{"resumed", admin.Filter{}, 18, []int{19, 20, 21}},
		{"resumed at the newest", admin.Filter{}, 20, []int{21}},
		{"resumed, with a limit", admin.Filter{Limit: 1}, 18, []int{20, 21}},
		{"resumed too late", admin.Filter{}, 8, []int{-2, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21}},
		{"resumed too late, with a limit", admin.Filter{Limit: 1}, 8, []int{-2, 20, 21}},
		{"of another journal", admin.Filter{}, 1000, []int{0, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21}},
		{"of another journal, with a limit", admin.Filter{Limit: 1}, 1000, []int{0, 20, 21}},
		{"filtered", admin.Filter{Client: "10.0.0.0"}, 14, []int{17, 21}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := clone(j)
				f, err := j.Follow(tt.filter, tt.after)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				var got []int
				done := make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					defer close(done)
					for {
						events, err := f.Next(ctx)
						if err != nil {
							return
						}
						got = append(got, seqs(events)...)
					}
				}()
				synctest.Wait()
				j.AddEnd(anEnd(20))
				synctest.Wait()
				cancel()
				<-done
				if !slices.Equal(got, tt.want) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
				if len(j.waiting) != 0 {
					t.Error("it still waits")
				}
			})
		})
	}
}

func clone(j *Journal) *Journal {
	c := &Journal{last: j.last, ends: j.ends, changes: j.changes}
	c.ends.records, c.changes.records = slices.Clone(j.ends.records), slices.Clone(j.changes.records)
	return c
}

// A follower that does not read holds nobody up, and learns how much it missed.
func TestSlowFollower(t *testing.T) {
	j := New(Options{Connections: 10, Changes: 10})
	slow, err := j.Follow(admin.Filter{}, Now)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	j.Add(aChange("redis"))
	for i := range 25 {
		j.AddEnd(anEnd(uint64(i)))
	}
	events, err := slow.Next(t.Context())
	if want := []int{-15, 1, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26}; err != nil || !slices.Equal(seqs(events), want) {
		t.Errorf("got %v, %v; want %v", seqs(events), err, want)
	}
	j.AddEnd(anEnd(26))
	if events, err = slow.Next(t.Context()); err != nil || !slices.Equal(seqs(events), []int{27}) {
		t.Errorf("a loss is told once; then came %v, %v", seqs(events), err)
	}
}

func TestFollowerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := New(Options{})
		f, err := j.Follow(admin.Filter{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		go func() { _, err := f.Next(t.Context()); failed <- err }()
		synctest.Wait()
		f.Close()
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Next of a closed follower: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("Close again: %v", err)
		}
		if err := Lines(t.Context(), f, &bytes.Buffer{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Lines of a closed follower: %v", err)
		}
	})
}

// Whatever is added and however it is read: in order, nothing twice, and what is
// missing was told, to the last one.
func TestFollowerProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := New(Options{Connections: rapid.IntRange(1, 40).Draw(t, "connections"), Changes: rapid.IntRange(1, 40).Draw(t, "changes")})
		f, err := j.Follow(admin.Filter{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		seen := make(map[uint64]bool)
		var lost uint64
		var newest uint64
		drain := func(batches int) {
			for range batches {
				events, err := f.Next(ended)
				if err != nil {
					return
				}
				for _, e := range events {
					if e.Event == admin.EventLost {
						lost += e.Count
						continue
					}
					if seen[e.Seq] || e.Seq <= newest {
						t.Fatalf("%d came again, or after %d", e.Seq, newest)
					}
					seen[e.Seq], newest = true, e.Seq
				}
			}
		}
		for range rapid.IntRange(0, 20).Draw(t, "rounds") {
			for range rapid.IntRange(0, 60).Draw(t, "ends") {
				j.AddEnd(anEnd(1))
			}
			for range rapid.IntRange(0, 60).Draw(t, "changes") {
				j.Add(aChange("redis"))
			}
			drain(rapid.IntRange(0, 2).Draw(t, "reads"))
		}
		drain(1000)
		if uint64(len(seen))+lost != j.Last() {
			t.Fatalf("%d were read and %d told as lost, of %d", len(seen), lost, j.Last())
		}
	})
}

// Everybody at once, for the race detector: readers and followers see events in
// order while they come.
func TestConcurrency(t *testing.T) {
	const adders, each = 4, 5000
	j := New(Options{Connections: 1000, Changes: 100})
	ctx, cancel := context.WithCancel(t.Context())
	var readers, writers sync.WaitGroup
	for range 3 {
		f, err := j.Follow(admin.Filter{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
			defer f.Close()
			var got, last uint64
			for {
				events, err := f.Next(ctx)
				if err != nil {
					break
				}
				for _, e := range events {
					switch {
					case e.Event == admin.EventLost:
						got += e.Count
						continue
					case e.Seq <= last:
						t.Errorf("%d came after %d", e.Seq, last)
					}
					got, last = got+1, e.Seq
				}
			}
			if got != adders*each {
				t.Errorf("%d were read or told as lost, of %d", got, adders*each)
			}
		})
	}
	for i := range adders {
		writers.Go(func() {
			for n := range each {
				if i == 0 && n%10 == 0 {
					j.Add(aChange("redis"))
					continue
				}
				j.AddEnd(anEnd(uint64(n)))
			}
		})
		writers.Go(func() {
			for range 20 {
				events, err := j.Read(admin.Filter{}, 0)
				if err != nil || !slices.IsSorted(seqs(events)) {
					t.Errorf("events are out of order, or %v", err)
				}
			}
		})
	}
	writers.Wait()
	cancel()
	readers.Wait()
}

// A full machine ends 20,000 connections a second: each may cost its event loop
// less than a microsecond, with somebody following too.
func BenchmarkAddEnd(b *testing.B) {
	for _, followers := range []int{0, 1, 4} {
		b.Run(fmt.Sprintf("followers=%d", followers), func(b *testing.B) {
			j := New(Options{})
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			for range followers {
				f, err := j.Follow(admin.Filter{}, Now)
				if err != nil {
					b.Fatal(err)
				}
				wg.Go(func() { _ = Lines(ctx, f, discard{}) })
			}
			e := anEnd(1)
			b.ReportAllocs()
			for b.Loop() {
				j.AddEnd(e)
			}
			cancel()
			wg.Wait()
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkRead(b *testing.B) {
	j := New(Options{})
	for i := range uint64(DefaultConnections) {
		j.AddEnd(anEnd(i))
	}
	for b.Loop() {
		if events, err := j.Read(admin.Filter{Client: "10.0.0.1", Limit: 100000}, 0); err != nil || len(events) == 0 {
			b.Fatal(err)
		}
	}
}
