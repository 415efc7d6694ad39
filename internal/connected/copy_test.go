package connected

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/holdfast-net/holdfast/internal/pair"
)

// A follower has what was put since the last beginning once its end is told,
// and until then what it had before, too.
func TestCopy(t *testing.T) {
	var c Copy
	apply := func(kind pair.ItemKind, i int) {
		t.Helper()
		r := Record{Tuple: simTuples[i], Kind: Socket, Since: noon}
		item := pair.Item{Kind: kind, Epoch: 1}
		switch kind {
		case pair.ItemPut:
			item.Value = AppendValue(nil, r)
			fallthrough
		case pair.ItemDelete:
			item.Key = AppendKey(nil, r.Tuple)
		}
		if err := c.Apply(item); err != nil {
			t.Error(err)
		}
	}
	want := func(n int) {
		t.Helper()
		if c.Len() != n || len(c.Records(nil)) != n {
			t.Errorf("%d are known, want %d", c.Len(), n)
		}
	}
	want(0)
	apply(pair.ItemDelete, 0) // it never was one
	apply(pair.ItemBegin, 0)
	apply(pair.ItemPut, 0)
	apply(pair.ItemPut, 1)
	apply(pair.ItemPut, 3)
	apply(pair.ItemEnd, 0)
	want(3)
	apply(pair.ItemPut, 4)
	apply(pair.ItemDelete, 0)
	want(3)

	second := simTuples[3].Local.Addr()
	if list := c.Records(func(a netip.Addr) bool { return a == second }); len(list) != 2 {
		t.Errorf("at %s are %v", second, list)
	}

	apply(pair.ItemBegin, 0)
	apply(pair.ItemPut, 4)
	apply(pair.ItemPut, 5)
	want(4) // the leader may die here
	apply(pair.ItemEnd, 0)
	want(2)

	// What cannot be read changes nothing, and is said.
	var unknown *FormatError
	for _, i := range []pair.Item{
		{Kind: pair.ItemPut, Key: []byte{9}},
		{Kind: pair.ItemDelete, Key: []byte{9}},
		{Kind: pair.ItemPut, Key: AppendKey(nil, simTuples[0]), Value: []byte{9}},
	} {
		if err := c.Apply(i); !errors.As(err, &unknown) || unknown.Form != 9 || err.Error() == "" {
			t.Errorf("%v", err)
		}
	}
	want(2)
}
