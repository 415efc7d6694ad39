//go:build linux

package netnstest

import (
	"os"
	"testing"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/rtnl"
)

// New gives the test a fresh network namespace with its loopback interface
// up, and closes it when the test ends. A test that is not run as root is
// skipped with that reason.
func New(tb testing.TB) *netns.NS {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("a network namespace needs root")
	}
	ns, err := netns.New()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := ns.Close(); err != nil {
			tb.Error(err)
		}
	})
	err = ns.Do(func() error {
		h, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer h.Close()
		return h.SetUp("lo")
	})
	if err != nil {
		tb.Fatal(err)
	}
	return ns
}
