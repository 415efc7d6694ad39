package node

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/config"
)

func TestRow(t *testing.T) {
	for _, tt := range []struct {
		name       string
		fall, rise int
		results    string // +: good, -: bad
		want       string // after each: w well, u unwell; in upper case where it is news
	}{
		{"the first decides: good", 3, 2, "+", "W"},
		{"the first decides: bad", 3, 2, "-", "U"},
		{"a row of failures", 3, 2, "+--+---", "WwwwwwU"},
		{"a row of successes", 3, 2, "-+-++", "UuuuW"},
		{"one is enough", 1, 1, "+-+-", "WUWU"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := row{fall: tt.fall, rise: tt.rise}
			got := ""
			for _, c := range tt.results {
				changed := r.result(c == '+')
				state := "u"
				if r.well {
					state = "w"
				}
				if changed {
					state = strings.ToUpper(state)
				}
				got += state
			}
			if got != tt.want {
				t.Errorf("%s became %s, want %s", tt.results, got, tt.want)
			}
		})
	}
}

// TestNotifier has roles change faster than a command ends: no two run at once,
// the last role is told, and what was in between is not.
func TestNotifier(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "told")
	text := `#!/bin/sh
mkdir ` + dir + `/running || echo "two at once" >> ` + dir + `/log
echo "$HOLDFAST_GROUP $HOLDFAST_ROLE $HOLDFAST_BEFORE $HOLDFAST_CAUSE $HOLDFAST_EPOCH $HOLDFAST_INTERFACE $HOLDFAST_ADDRESSES" >> ` + dir + `/log
while [ ! -e ` + dir + `/go ]; do :; done
rmdir ` + dir + `/running
[ "$HOLDFAST_ROLE" != fault ] || { echo "no luck"; exit 3; }
`
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	group := config.AddressGroup{
		Name: "front", Interface: "eth0",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
		Notify:    config.Notify{Active: []string{script}, Backup: []string{script}, Fault: []string{script}},
	}
	events := make(chan string, 16)
	n := newNotifier(slog.New(slog.DiscardHandler), func(group, state, reason string) { events <- group + " " + state + " " + reason })
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.run(context.Background())
	}()
	tell := func(to, from string, epoch uint64) {
		n.tell(news{group, admin.RoleChange{To: to, From: from, Cause: "silence", Epoch: epoch}})
	}
	log := func() string {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		return string(text)
	}
	tell("active", "backup", 1)
	deadline := time.Now().Add(10 * time.Second)
	for log() == "" {
		if time.Now().After(deadline) {
			t.Fatal("the command did not run within 10 s")
		}
	}
	tell("backup", "active", 1) // nobody is told of this: it is over before its turn
	tell("fault", "backup", 2)
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := <-events; !strings.HasPrefix(e, "front notified ") {
		t.Errorf("the first event is %q", e)
	}
	if e := <-events; !strings.HasPrefix(e, "front notify_failed ") || !strings.HasSuffix(e, "for the role fault failed: exit status 3: no luck") {
		t.Errorf("the second event is %q", e)
	}
	want := "front active backup silence 1 eth0 10.0.0.1/24 2001:db8::1/64\nfront fault backup silence 2 eth0 10.0.0.1/24 2001:db8::1/64\n"
	if got := log(); got != want {
		t.Errorf("the commands wrote\n%swant\n%s", got, want)
	}
	if p, ok := n.problem("front"); !ok || p.Code != admin.ProblemNotify || p.Group != "front" || !strings.Contains(p.Text, "no luck") {
		t.Errorf("the problem is %+v, %t", p, ok)
	}
	tell("backup", "fault", 2)
	n.close() // the last one is told all the same
	<-done
	if got := log(); got != want+"front backup fault silence 2 eth0 10.0.0.1/24 2001:db8::1/64\n" {
		t.Errorf("the commands wrote\n%s", got)
	}
	if _, ok := n.problem("front"); ok {
		t.Error("a command that succeeded left a problem")
	}
}

// TestProgramIsBounded has programs that do not end, and leave others behind.
func TestProgramIsBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	out, err := runProgram(ctx, []string{"/bin/sh", "-c", "echo before; sleep 1000 & sleep 1000"}, nil)
	if took := time.Since(began); err != context.DeadlineExceeded || out != "before" || took > 10*time.Second {
		t.Errorf("%q, %v after %v", out, err, took)
	}
	if _, err := runProgram(context.Background(), []string{"no-such-program"}, nil); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v", err)
	}
	if out, err := runProgram(context.Background(), []string{"/bin/sh", "-c", "echo $A; exit 2"}, []string{"A=b"}); out != "b" || err == nil || err.Error() != "exit status 2" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestGroupChanges(t *testing.T) {
	group := func(name string, change func(*config.AddressGroup)) config.AddressGroup {
		g := config.AddressGroup{Name: name, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}
		if change != nil {
			change(&g)
		}
		return g
	}
	before := []config.AddressGroup{group("a", nil), group("b", nil), group("c", nil)}
	after := []config.AddressGroup{
		group("a", nil),
		group("c", func(g *config.AddressGroup) {
			g.Interface, g.VRRP = "eth1", &config.VRRP{ID: 7, Priority: 200, Interval: time.Second}
		}),
		group("d", nil),
	}
	got := strings.Join(groupChanges(before, after), "\n")
	want := `addresses c: interface eth0 -> eth1
addresses c: vrrp none -> id 7, priority 200, interval 1s, preempt false, preempt_delay 0s, peers []
addresses d added (10.0.0.1/24 on eth0)
addresses b removed`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if list := groupChanges(after, after); len(list) > 0 {
		t.Errorf("the same file changes %q", list)
	}
}
