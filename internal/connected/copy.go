package connected

import (
	"net/netip"
	"sync"

	"github.com/holdfast-net/holdfast/internal/pair"
)

// A Copy is what the other node knows of who is connected. The zero Copy is
// empty. Its methods may be called at the same time, [Copy.Apply] in order.
type Copy struct {
	mu      sync.Mutex
	records map[Tuple]held
	round   uint64 // of the last ItemBegin
}

type held struct {
	Record
	round uint64
}

// Apply takes one item of the peer's set. An error says that an item could not
// be read, which changes nothing else.
func (c *Copy) Apply(i pair.Item) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch i.Kind {
	case pair.ItemBegin:
		c.round++
	case pair.ItemEnd:
		for t, h := range c.records {
			if h.round != c.round {
				delete(c.records, t)
			}
		}
	case pair.ItemPut:
		r, err := Decode(i.Key, i.Value)
		if err != nil {
			return err
		}
		if c.records == nil {
			c.records = make(map[Tuple]held)
		}
		c.records[r.Tuple] = held{r, c.round}
	case pair.ItemDelete:
		t, err := DecodeKey(i.Key)
		if err != nil {
			return err
		}
		delete(c.records, t)
	}
	return nil
}

// Records lists the connections at the addresses for which at says so; nil
// stands for all.
func (c *Copy) Records(at func(netip.Addr) bool) []Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Record
	for t, h := range c.records {
		if at == nil || at(t.Local.Addr()) {
			list = append(list, h.Record)
		}
	}
	return list
}

// Len is how many connections are known.
func (c *Copy) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.records)
}
