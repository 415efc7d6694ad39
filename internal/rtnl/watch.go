//go:build linux

package rtnl

import (
	"bytes"
	"encoding/binary"
	"iter"
	"net/netip"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// A Kind says what has changed.
type Kind uint8

const (
	LinkSet     Kind = iota // a link is there, or stands otherwise: Change.Link
	LinkGone                // a link was removed: Change.Link
	AddressSet              // an address is there, or has new lifetimes or flags: Change.Address
	AddressGone             // an address was removed, or its lifetime has ended: Change.Address
)

// A Change is one thing that has changed.
type Change struct {
	Kind    Kind
	Index   int     // of the link
	Link    Link    // as it stands, or last stood
	Address Address // as it stands, or last stood
}

// Watch receives the changes of links and addresses of one network namespace.
// It is not safe for use by several goroutines at once.
type Watch struct {
	w    *sys.RouteWatch
	msgs []sys.NetlinkMessage
}

// OpenWatch subscribes to the changes in the network namespace of the calling
// thread. What stands there already is not told: ask for it after this.
func OpenWatch() (*Watch, error) {
	w, err := sys.OpenRouteWatch(sys.RouteLinks | sys.RouteAddresses4 | sys.RouteAddresses6)
	if err != nil {
		return nil, err
	}
	return &Watch{w: w}, nil
}

// FD is readable when there is a change to read. It is for a poll loop only,
// and closed by Close.
func (w *Watch) FD() int { return w.w.FD() }

// atOnce bounds how many of the kernel's messages one Read takes, so that a
// storm of changes does not keep its caller from everything else.
const atOnce = 64

// Read appends to list the changes that have arrived. It never waits. more says
// that there may be further ones. resync says that some were lost, because
// nobody read: whoever keeps a picture must ask for all of it again, once there
// is nothing more, as the kernel drops what comes before that without a word.
func (w *Watch) Read(list []Change) (_ []Change, more, resync bool, err error) {
	for range atOnce {
		var lost bool
		w.msgs, more, lost, err = w.w.Receive(w.msgs[:0])
		resync = resync || lost
		if !more || err != nil {
			return list, false, resync, err
		}
		for _, m := range w.msgs {
			if c, ok := parse(m); ok {
				list = append(list, c)
			}
		}
	}
	return list, true, resync, nil
}

// Close ends the subscription.
func (w *Watch) Close() error { return w.w.Close() }

// Sizes and attributes of rtnetlink (linux/if_link.h, linux/if_addr.h).
const (
	sizeofIfinfomsg = 16
	sizeofIfaddrmsg = 8

	iflaAddress  = 1
	iflaName     = 3
	iflaMTU      = 4
	iflaWireless = 11
	ifaAddress   = 1
	ifaLocal     = 2
	ifaCacheinfo = 6
	ifaFlags     = 8
)

// parse reads a message; ok is false for one that tells nothing of interest.
func parse(m sys.NetlinkMessage) (c Change, ok bool) {
	switch m.Type {
	case syscall.RTM_NEWLINK, syscall.RTM_DELLINK:
		c.Kind = LinkSet
		if m.Type == syscall.RTM_DELLINK {
			c.Kind = LinkGone
		}
		return parseLink(c, m.Body)
	case syscall.RTM_NEWADDR, syscall.RTM_DELADDR:
		c.Kind = AddressSet
		if m.Type == syscall.RTM_DELADDR {
			c.Kind = AddressGone
		}
		return parseAddress(c, m.Body)
	}
	return c, false
}

func parseLink(c Change, b []byte) (Change, bool) {
	// The bridge tells of its ports in another family.
	if len(b) < sizeofIfinfomsg || b[0] != syscall.AF_UNSPEC {
		return c, false
	}
	c.Index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	c.Link.Index = c.Index
	c.Link.setFlags(binary.NativeEndian.Uint32(b[8:]))
	for kind, value := range attributes(b[sizeofIfinfomsg:]) {
		switch {
		case kind == iflaWireless:
			return c, false // about a radio, not about the link
		case kind == iflaAddress && len(value) == len(c.Link.MAC):
			c.Link.MAC = [6]byte(value)
		case kind == iflaName:
			c.Link.Name = string(bytes.TrimRight(value, "\x00"))
		case kind == iflaMTU && len(value) >= 4:
			c.Link.MTU = int(binary.NativeEndian.Uint32(value))
		}
	}
	return c, true
}

func parseAddress(c Change, b []byte) (Change, bool) {
	if len(b) < sizeofIfaddrmsg {
		return c, false
	}
	bits, flags := int(b[1]), uint32(b[2])
	c.Index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	var addr, local netip.Addr
	valid, preferred := uint32(forEver), uint32(forEver)
	for kind, value := range attributes(b[sizeofIfaddrmsg:]) {
		switch {
		case kind == ifaAddress:
			addr, _ = netip.AddrFromSlice(value)
		case kind == ifaLocal:
			local, _ = netip.AddrFromSlice(value)
		case kind == ifaFlags && len(value) >= 4:
			flags = binary.NativeEndian.Uint32(value)
		case kind == ifaCacheinfo && len(value) >= 8:
			preferred, valid = binary.NativeEndian.Uint32(value), binary.NativeEndian.Uint32(value[4:])
		}
	}
	// Where there are both, the other one is the far end of the link.
	if local.IsValid() {
		if addr.IsValid() && addr != local {
			bits = local.BitLen()
		}
		addr = local
	}
	if !addr.IsValid() || bits > addr.BitLen() {
		return c, false
	}
	c.Address = fromKernel(netip.PrefixFrom(addr, bits), flags, valid, preferred)
	return c, true
}

// attributes goes through the attributes of a message.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		const header = 4
		for len(b) >= header {
			n := int(binary.NativeEndian.Uint16(b))
			if n < header || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[header:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}
