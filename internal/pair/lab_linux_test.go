package pair

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// childOptions is a node of its own process.
type childOptions struct {
	Listen, Peer netip.AddrPort
	Keys, Node   string
	Silence      time.Duration
}

// child runs a node: it says each time that the link is up or down, and what it
// hears of the peer's table, in which it makes an entry at each start.
func child(args string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	var c childOptions
	fail(json.Unmarshal([]byte(args), &c))
	keys, err := LoadKeys(c.Keys)
	fail(err)
	table, err := NewTable(TableOptions{ID: 1, Name: "hands", Node: c.Node, OnEntry: func(e Entry) { fmt.Printf("entry %s\n", e.Key) }})
	fail(err)
	fail(table.Put(fmt.Sprintf("%s-%d", c.Node, os.Getpid()), nil))
	times := make(map[string]int)
	l, err := New(Options{Listen: c.Listen, Peer: c.Peer, Keys: keys, Node: c.Node, Silence: c.Silence, Tables: []*Table{table}, OnState: func(s State) {
		times[s.State]++
		fmt.Printf("%s %d: %s\n", s.State, times[s.State], s.Error)
	}})
	fail(err)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fail(l.Run(ctx))
}

// TestInLaboratory: two nodes that are machines of their own. A cable is cut, a
// host dies without a word, a process is killed, frozen, and continued.
func TestInLaboratory(t *testing.T) {
	top, err := lab.OneArm(lab.Size{Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Supported(top); err != nil {
		t.Skip(err)
	}
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(f.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			l, err := lab.Start(ctx, top, lab.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			dir := filepath.Join(t.TempDir(), "keys")
			if _, err := Init(dir); err != nil {
				t.Fatal(err)
			}
			const silence = 400 * time.Millisecond
			start := func(i int) *lab.Process {
				t.Helper()
				host, peer := l.Host(fmt.Sprintf("node%d", i)), l.Host(fmt.Sprintf("node%d", 3-i))
				args, err := json.Marshal(childOptions{
					Listen: host.AddrPort(f, 7420), Peer: peer.AddrPort(f, 7420), Keys: nodeDir(dir, i), Node: host.Name(), Silence: silence,
				})
				if err != nil {
					t.Fatal(err)
				}
				p, err := host.Start(lab.Command{Argv: []string{os.Args[0]}, Env: []string{childEnv + "=" + string(args)}})
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
			await := func(p *lab.Process, text string) {
				t.Helper()
				if err := p.Await(ctx, text); err != nil {
					t.Fatal(err)
				}
			}
			must := func(at time.Time, err error) time.Time {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				return at
			}
			one, two := start(1), start(2)
			await(one, "synced 1")
			await(two, "synced 1")
			await(one, fmt.Sprintf("entry node2-%d", two.PID()))

			cable := l.Host("node1").Links()[0]
			at := must(cable.Block(lab.FromHost))
			await(two, "down 1: nothing came from the peer")
			await(one, "down 1")
			t.Logf("frames lost one way: noticed at both after %v, silence %v", time.Since(at), silence)
			must(cable.SetLoss(lab.FromHost, 0))
			await(one, "synced 2")
			await(two, "synced 2")

			at = must(cable.Cut())
			await(one, "down 2")
			await(two, "down 2")
			t.Logf("cable cut: noticed at both after %v", time.Since(at))
			must(cable.Restore())
			await(one, "synced 3")
			await(two, "synced 3")

			at = must(one.Freeze())
			await(two, "down 3: nothing came from the peer")
			t.Logf("process frozen: noticed after %v", time.Since(at))
			must(one.Signal(syscall.SIGCONT))
			await(one, "synced 4")
			await(two, "synced 4")

			at = must(one.Kill())
			await(two, "down 4: the peer's program ended")
			t.Logf("process killed: noticed after %v", time.Since(at))
			one = start(1)
			await(one, "synced 1")
			await(two, "synced 5")
			await(two, fmt.Sprintf("entry node1-%d", one.PID()))
			await(one, fmt.Sprintf("entry node2-%d", two.PID())) // what it made at its start, again

			must(one.Signal(syscall.SIGTERM))
			await(two, "down 5: the peer's program ends")
			if err := one.Wait(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}
