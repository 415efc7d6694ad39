package node_test

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/holdfast-net/holdfast/internal/pair"
	"github.com/holdfast-net/holdfast/vip"
)

// The link takes the largest beat that an elector makes.
func TestTheLinkTakesEveryBeat(t *testing.T) {
	dir := t.TempDir()
	if _, err := pair.Init(dir); err != nil {
		t.Fatal(err)
	}
	keys, err := pair.LoadKeys(filepath.Join(dir, "node1"))
	if err != nil {
		t.Fatal(err)
	}
	link, err := pair.New(pair.Options{
		Listen: netip.MustParseAddrPort("127.0.0.1:7420"), Peer: netip.MustParseAddrPort("127.0.0.2:7420"), Keys: keys, Node: "node1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := link.SendBeat(make([]byte, vip.MaxBeat)); err != nil {
		t.Error(err)
	}
	if err := link.Close(); err != nil {
		t.Error(err)
	}
}
