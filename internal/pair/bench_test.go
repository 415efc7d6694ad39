package pair

import (
	"context"
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
)

// BenchmarkPut is what a producer pays for a change, with a peer that reads.
func BenchmarkPut(b *testing.B) {
	set := benchPair(b)
	key, value := make([]byte, 16), make([]byte, 200)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint64(key, uint64(i%100_000))
		if err := set.Put(key, value); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkProtected is how long it takes until a change is protected.
func BenchmarkProtected(b *testing.B) {
	set := benchPair(b)
	key := make([]byte, 16)
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint64(key, uint64(i%1000))
		if err := set.Put(key, key); err != nil {
			b.Fatal(err)
		}
		for !set.Protected(key) {
			runtime.Gosched()
		}
	}
}

func benchPair(b *testing.B) *Set {
	b.Helper()
	dir := b.TempDir()
	if _, err := Init(dir); err != nil {
		b.Fatal(err)
	}
	at := [2]netip.AddrPort{netip.MustParseAddrPort("127.0.0.11:17420"), netip.MustParseAddrPort("127.0.0.12:17420")}
	var sets [2]*Set
	for i := range sets {
		keys, err := LoadKeys(nodeDir(dir, i+1))
		if err != nil {
			b.Fatal(err)
		}
		if sets[i], err = NewSet(SetOptions{ID: 1, Name: "bench", OnItem: func(Item) {}}); err != nil {
			b.Fatal(err)
		}
		l, err := New(Options{Listen: at[i], Peer: at[1-i], Keys: keys, Node: nodeName(i + 1), Sets: []*Set{sets[i]}})
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- l.Run(context.Background()) }()
		b.Cleanup(func() {
			if err := l.Close(); err != nil {
				b.Error(err)
			}
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
	if err := sets[0].Lead(1, nil); err != nil {
		b.Fatal(err)
	}
	eventually(b, "not synced", func() bool { return sets[0].State().State == Synced })
	return sets[0]
}
