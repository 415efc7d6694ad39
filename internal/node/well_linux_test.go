package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/lab"
)

// TestWellAfterTheDaemonBefore has a daemon tell its elector that a group is not
// well, and die: the elector remembers it, and the next daemon has no command
// that could say otherwise.
func TestWellAfterTheDaemonBefore(t *testing.T) {
	top, err := lab.OneArm(lab.Size{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Supported(top); err != nil {
		t.Skip(err)
	}
	l, err := lab.Start(t.Context(), top, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "well") //nolint:usetesting // unix sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	n := &member{
		couple: &couple{t: t, lab: l, dir: dir, address: lab.Address(lab.IPv4, 100)}, name: "node1", host: l.Host("node1"),
		file: filepath.Join(dir, "f"), socket: filepath.Join(dir, "s"),
	}
	n.admin.Socket = n.socket
	write := func(more string) {
		text := fmt.Sprintf("node: node1\naddresses:\n  - {name: front, interface: eth0, addresses: [%q]%s}\nadmin: {socket: %s}\ndirectories: {runtime: %s}\n",
			n.address, more, n.socket, dir)
		if err := os.WriteFile(n.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(", track: {command: [/bin/false], interval: 1s, fall: 1, rise: 1}")
	n.start()
	n.await("its command has failed", func(s admin.Status) bool {
		return s.Addresses[0].Role == admin.RoleFault && len(s.Addresses[0].Track) > 0 && s.Addresses[0].Reason == s.Addresses[0].Track[0].Reason
	})
	n.signal(syscall.SIGKILL)
	<-n.process.Done()
	write("")
	n.start()
	n.awaitRole(admin.RoleActive)
	n.signal(syscall.SIGTERM)
	<-n.process.Done()
}
