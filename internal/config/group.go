package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ownAddress understands an address with the length of its network.
func ownAddress(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%s: the interface is a key of its own; write %s/64", quote(text), a.WithZone(""))
		}
		one, most := 24, 32
		if a.Is6() {
			one, most = 64, 128
		}
		return netip.Prefix{}, fmt.Errorf("%s has no length; write that of its network, as %v/%d, or %v/%d for the address alone", quote(text), a, one, a, most)
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, fmt.Errorf("%s is no address with a length; write it as 10.0.0.100/24 or 2001:db8::100/64", quote(text))
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is an IPv4 address in IPv6 form; write it as 10.0.0.100/24", quote(text))
	}
	return p, nil
}

// plainAddress understands an IP address without a port.
func plainAddress(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err == nil {
		return a.Unmap(), nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return netip.Addr{}, fmt.Errorf("%s has a length; write the address alone: %v", quote(text), p.Addr())
	}
	if p, err := netip.ParseAddrPort(text); err == nil {
		return netip.Addr{}, fmt.Errorf("%s has a port; write the address alone: %v", quote(text), p.Addr())
	}
	if !numeric(text) && checkHost(text) == nil {
		return netip.Addr{}, fmt.Errorf("%s names a host; write its IP address: a name server must not decide who owns an address", quote(text))
	}
	return netip.Addr{}, fmt.Errorf("%s is no IP address; write one as 10.0.0.1 or 2001:db8::1", quote(text))
}

// parseNode understands where a node of a pair is: an IP address and a port.
func parseNode(text string) (Address, error) {
	if port := strings.TrimPrefix(text, ":"); port != "" && strings.Trim(port, "0123456789") == "" {
		return Address{}, fmt.Errorf("%q has no address; write the one that the nodes reach each other by, as 10.0.0.11:%s", text, port)
	}
	a, err := ParseBackendAddress(text)
	switch {
	case err != nil:
		return Address{}, err
	case a.IsUnix():
		return Address{}, fmt.Errorf("%q is a unix socket, which the other node cannot reach; write ADDRESS:PORT", text)
	case a.Host != "":
		return Address{}, fmt.Errorf("%q names a host; write its IP address and the port: a name server must not decide who owns an address", text)
	}
	return a, nil
}

// Group returns the group that has the address that something listens on; false
// for an address that does not move.
func (c *Config) Group(a Address) (*AddressGroup, bool) {
	for i := range c.Addresses {
		if c.Addresses[i].Has(a.Addr) {
			return &c.Addresses[i], true
		}
	}
	return nil, false
}

// Has reports whether the group has the address. A link-local one is the group's
// where its zone is the group's interface, or where it has none.
func (g *AddressGroup) Has(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" && a.Zone() != g.Interface {
		return false
	}
	return slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Addr() == a.WithZone("") })
}

// ServicesOf returns the services that listen on an address of the group, by their
// numbers in the file. One that listens on every address of the machine is not
// among them.
func (c *Config) ServicesOf(g *AddressGroup) []int {
	var all []int
	for i := range c.Services {
		if slices.ContainsFunc(c.Services[i].Listen, func(a Address) bool { return g.Has(a.Addr) }) {
			all = append(all, i)
		}
	}
	return all
}

// Part is a part of a file that both nodes of a pair must have alike.
type Part struct {
	Name   string `json:"name"`   // services.redis, addresses.front, pair.witness
	Digest string `json:"digest"` // 12 hex digits
}

// Shared lists the parts that both nodes of a pair must have alike, sorted by
// name, so that two nodes can say where they differ. What may differ from node to
// node is not in it: names, interfaces, priorities, preemption, peers, what is
// tracked and who is notified.
func (c *Config) Shared() []Part {
	var parts []Part
	add := func(name string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			panic(fmt.Sprintf("%s: %v", name, err)) // plain data: a test has one of each
		}
		sum := sha256.Sum256(text)
		parts = append(parts, Part{Name: name, Digest: hex.EncodeToString(sum[:])[:12]})
	}
	// With another witness at each node both could keep the addresses in a split.
	if c.Pair != nil && c.Pair.Witness.IsValid() {
		add("pair.witness", c.Pair.Witness)
	}
	for i := range c.Addresses {
		g := &c.Addresses[i]
		part := struct {
			Addresses []netip.Prefix
			ID        int
			Interval  time.Duration
		}{Addresses: slices.SortedFunc(slices.Values(g.Addresses), comparePrefix)}
		if g.VRRP != nil {
			part.ID, part.Interval = g.VRRP.ID, g.VRRP.Interval
		}
		add("addresses."+g.Name, part)
	}
	for i := range c.Services {
		add("services."+c.Services[i].Name, &c.Services[i])
	}
	slices.SortFunc(parts, func(a, b Part) int { return strings.Compare(a.Name, b.Name) })
	return parts
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// maxGroups is how many groups there may be: as many as there are ids.
const maxGroups = 255

// checkMoving checks the pair and the groups of addresses.
func (k *checker) checkMoving() {
	if len(k.Addresses) > maxGroups {
		k.report(fmt.Sprintf("addresses[%d]", maxGroups), "there may be %d groups; put addresses that move together into one", maxGroups)
		return
	}
	k.moving = make(map[netip.Addr][]*AddressGroup)
	for i := range k.Addresses {
		g := &k.Addresses[i]
		for _, p := range g.Addresses {
			if all := k.moving[p.Addr()]; !slices.ContainsFunc(all, func(o *AddressGroup) bool { return o.Interface == g.Interface }) {
				k.moving[p.Addr()] = append(all, g)
			}
		}
	}
	k.checkPair()
	k.checkGroups()
}

// moves returns the group that has an address, as Config.Group does.
func (k *checker) moves(a netip.Addr) (*AddressGroup, bool) {
	for _, g := range k.moving[a.WithZone("")] {
		if a.IsValid() && (a.Zone() == "" || a.Zone() == g.Interface) {
			return g, true
		}
	}
	return nil, false
}

func (k *checker) checkPair() {
	p := k.Pair
	if _, ok := k.is("pair"); !ok || p == nil {
		return
	}
	_, listen := k.is("pair.listen")
	_, peer := k.is("pair.peer")
	listen = listen && k.node("pair.listen", p.Listen)
	peer = peer && k.node("pair.peer", p.Peer)
	if listen && peer {
		switch {
		case p.Listen == p.Peer:
			k.report("pair.peer", "%v is where this node itself listens; write where the other one does", p.Peer)
		case p.Listen.Addr.Is4() != p.Peer.Addr.Is4():
			k.report("pair.peer", "%v cannot be reached from %v: one is IPv4, the other IPv6; write both in one family", p.Peer, p.Listen)
		}
	}
	if _, ok := k.is("pair.keys"); ok {
		switch {
		case !filepath.IsAbs(p.Keys):
			k.wrong("pair.keys", relative(p.Keys))
		case strings.ContainsFunc(p.Keys, control):
			k.report("pair.keys", "a path has no control characters; leave them out")
		}
	}
	if listen {
		k.own("pair.listen", p.Listen)
	}
	if _, ok := k.is("pair.witness"); ok {
		k.checkWitness(p.Witness)
	}
}

// node checks where a node of the pair is.
func (k *checker) node(path string, a Address) bool {
	switch {
	case a.Addr.IsUnspecified():
		k.report(path, "%v is every address of a machine; write the one that the nodes reach each other by", a)
		return false
	case !k.listenable(path, a):
		return false
	}
	if g, ok := k.moves(a.Addr); ok {
		k.report(path, "%v moves: it is an address of group %s; write one that stays with its node", a.Addr, printable(g.Name))
		return false
	}
	return true
}

func (k *checker) checkWitness(w netip.Addr) {
	const path = "pair.witness"
	known := true // every network
	near := false
	for i := range k.Addresses {
		for j, p := range k.Addresses[i].Addresses {
			if _, ok := k.is(fmt.Sprintf("addresses[%d].addresses[%d]", i, j)); !ok {
				known = false
				continue
			}
			near = near || p.Masked().Contains(w) || w.Is6() && w.IsLinkLocalUnicast() && p.Addr().Is6()
		}
	}
	switch g, ok := k.moves(w); {
	case w.Zone() != "":
		k.report(path, "%v has a zone, and a witness is asked on the interface of each group; leave the zone out: %v", w, w.WithZone(""))
	case !ordinary(w):
		k.report(path, "%v is no address of one other machine; write the gateway's", w)
	case ok:
		k.report(path, "%v is an address of group %s, which moves; write one of a third machine, as the gateway", w, printable(g.Name))
	case w == k.Pair.Listen.Addr || w == k.Pair.Peer.Addr:
		k.report(path, "%v is one of the two nodes; a witness is a third machine, as the gateway", w)
	case len(k.Addresses) == 0:
		k.report(path, "a witness decides about addresses, and there are none; add `addresses`, or leave it out")
	case known && !near:
		k.report(path, "%v is in no network of `addresses`, and is asked by ARP or neighbour solicitation; write one that is, as the gateway", w)
	}
}

// ordinary reports whether a is an address that one machine of a network has.
func ordinary(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// groups is what is unique among the groups of a file.
type groups struct {
	names     map[string]string
	addresses map[netip.Addr]string // of the key; a link-local one with its interface
	ids       map[string]string
}

func (k *checker) checkGroups() {
	seen := groups{make(map[string]string), make(map[netip.Addr]string), make(map[string]string)}
	for i := range k.Addresses {
		path := fmt.Sprintf("addresses[%d]", i)
		if _, ok := k.is(path); ok {
			k.checkGroup(path, &k.Addresses[i], &seen)
		}
	}
}

func (k *checker) checkGroup(path string, g *AddressGroup, seen *groups) {
	if _, err := netip.ParseAddr(g.Name); err == nil {
		k.report(path+".name", "the name %s is an address, and commands take both; write another name", quote(g.Name))
	} else {
		k.unique(seen.names, path, g.Name, "group", false)
	}
	if _, ok := k.is(path + ".interface"); ok {
		k.wrong(path+".interface", CheckInterface(g.Interface))
	}
	has4, has6 := k.checkOwned(path+".addresses", g, seen)
	k.checkVRRP(path+".vrrp", g, seen, has4, has6)
	k.checkTrack(path+".track", g)
	for _, n := range []struct {
		key  string
		argv []string
	}{{"active", g.Notify.Active}, {"backup", g.Notify.Backup}, {"fault", g.Notify.Fault}} {
		if len(n.argv) > 0 {
			k.checkArgv(path+".notify."+n.key, n.argv)
		}
	}
}

// CheckInterface says what is wrong with the interface of a group.
func CheckInterface(name string) error {
	if name == "lo" {
		return errors.New("nobody else is on lo, so that nobody could be told who owns an address there; write the interface of the clients' network")
	}
	return checkInterface(name)
}

// checkInterface says what is wrong with the name of an interface.
func checkInterface(name string) error {
	switch {
	case name == "":
		return errors.New("the name of the interface is empty; write one as `ip link` lists it")
	case len(name) > 15:
		return fmt.Errorf("%s is no name of an interface; it has at most 15 characters", quote(name))
	case name == "." || name == ".." || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == '/' || c == ':' || c > '~' }):
		return fmt.Errorf("%s is no name of an interface; write one as `ip link` lists it", quote(name))
	}
	return nil
}

// maxOwned is how many addresses of one family an advert can list.
const maxOwned = 255

// The shortest lengths that are taken for a network.
const (
	shortest4 = 8
	shortest6 = 16
)

// checkOwned checks the addresses of a group, and reports which families it has;
// both where that is not known.
func (k *checker) checkOwned(path string, g *AddressGroup, seen *groups) (has4, has6 bool) {
	at, ok := k.is(path)
	if !ok {
		return true, true
	}
	if len(g.Addresses) == 0 {
		k.bad(at, path, "the list is empty; say which addresses move")
	}
	unknown := false
	n4, n6 := 0, 0
	for i, p := range g.Addresses {
		one := fmt.Sprintf("%s[%d]", path, i)
		at, ok := k.is(one)
		if !ok {
			unknown = true
			continue
		}
		a := p.Addr()
		count := &n6
		if a.Is4() {
			count = &n4
		}
		if *count++; *count == maxOwned+1 {
			k.bad(at, one, "an advert has room for %d addresses of one family; make two groups of it", maxOwned)
		}
		if err := CheckOwned(p); err != nil {
			k.wrong(one, err)
			continue
		}
		key := a
		if a.Is6() && a.IsLinkLocalUnicast() {
			key = a.WithZone(g.Interface)
		}
		if first, ok := seen.addresses[key]; ok {
			k.bad(at, one, "%v is in line %d already; leave one of them out", a, k.at[first].Line)
			continue
		}
		seen.addresses[key] = one
	}
	return n4 > 0 || unknown, n6 > 0 || unknown
}

// CheckOwned says what is wrong with an address to own.
func CheckOwned(p netip.Prefix) error {
	a, bits, shortest := p.Addr(), p.Bits(), shortest6
	if a.Is4() {
		shortest = shortest4
	}
	switch {
	case a.IsLoopback():
		return fmt.Errorf("%v is a loopback address, which every machine has for itself; write one of the clients' network", a)
	case a.IsMulticast():
		return fmt.Errorf("%v is a multicast address, which nobody owns; write one of a machine", a)
	case !ordinary(a):
		return fmt.Errorf("%v is no address of a machine; write one of the clients' network", a)
	case bits < shortest:
		return fmt.Errorf("%v would be a network of /%d, and the shortest length here is /%d; write that of the interface's network", a, bits, shortest)
	case a.Is6() || bits >= 31:
		return nil
	}
	host := ^uint32(0) >> bits
	b := a.As4()
	switch n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]); n & host {
	case 0:
		return fmt.Errorf("%v is the network itself, not an address in it; write one of a machine", p)
	case host:
		return fmt.Errorf("%v is the broadcast address of its network; write one of a machine", p)
	}
	return nil
}

func (k *checker) checkVRRP(path string, g *AddressGroup, seen *groups, has4, has6 bool) {
	at, ok := k.is(path)
	v := g.VRRP
	if !ok || v == nil {
		return
	}
	if here, ok := k.is(path + ".id"); ok && g.Interface != "" {
		key := fmt.Sprintf("%s %d", g.Interface, v.ID)
		if first, ok := seen.ids[key]; ok {
			k.bad(here, path+".id", "the id %d is taken on %s, in line %d; give one of them another number", v.ID, printable(g.Interface), k.at[first].Line)
		} else {
			seen.ids[key] = path + ".id"
		}
	}
	if here, ok := k.is(path + ".interval"); ok && v.Interval%(10*time.Millisecond) != 0 {
		k.bad(here, path+".interval", "%v is no multiple of 10ms, in which VRRP counts; write %v", v.Interval, max(v.Interval.Round(10*time.Millisecond), 10*time.Millisecond))
	}
	if here, ok := k.is(path + ".preempt_delay"); ok && v.PreemptDelay > 0 && !v.Preempt {
		k.bad(here, path+".preempt_delay", "it means nothing without `preempt: true`; add that, or leave it out")
	}
	if len(v.Peers) == 0 {
		return
	}
	peer4, peer6 := false, false
	first := make(map[netip.Addr]bool)
	for i, a := range v.Peers {
		p := fmt.Sprintf("%s.peers[%d]", path, i)
		if _, ok := k.is(p); !ok {
			return // who hears the adverts is not known
		}
		peer4, peer6 = peer4 || a.Is4(), peer6 || a.Is6()
		switch other, moves := k.moves(a); {
		case a.Zone() != "":
			k.report(p, "%v has a zone, and adverts go out on the interface of the group; leave the zone out: %v", a, a.WithZone(""))
		case !ordinary(a):
			k.report(p, "%v is no address of one other machine; write the other node's, or leave `peers` out for multicast", a)
		case moves:
			k.report(p, "%v is an address of group %s, which moves; write one that stays with the other node", a, printable(other.Name))
		case k.Pair != nil && a == k.Pair.Listen.Addr:
			k.report(p, "%v is this node; write the other one's", a)
		case first[a]:
			k.report(p, "%v is here twice; leave it out", a)
		case a.Is4() && !has4:
			k.report(p, "adverts to %v are about IPv4 addresses, and the group has none; leave it out", a)
		case a.Is6() && !has6:
			k.report(p, "adverts to %v are about IPv6 addresses, and the group has none; leave it out", a)
		}
		first[a] = true
	}
	if here, ok := k.keyAt[path+".peers"]; ok {
		at = here
	}
	switch {
	case has4 && len(g.Addresses) > 0 && !peer4 && has(g.Addresses, true):
		k.bad(at, path+".peers", "the group has IPv4 addresses, and nobody would hear their adverts; add the IPv4 address of the other node")
	case has6 && !peer6 && has(g.Addresses, false):
		k.bad(at, path+".peers", "the group has IPv6 addresses, and nobody would hear their adverts; add the IPv6 address of the other node")
	}
}

// has reports whether one of the addresses is IPv4, or else IPv6.
func has(all []netip.Prefix, four bool) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.IsValid() && p.Addr().Is4() == four })
}

// onlyWithCommand is what means nothing without a command to run.
var onlyWithCommand = []string{"interval", "fall", "rise"}

func (k *checker) checkTrack(path string, g *AddressGroup) {
	first := make(map[string]bool)
	for i, name := range g.Track.Interfaces {
		p := fmt.Sprintf("%s.interfaces[%d]", path, i)
		if _, ok := k.is(p); !ok {
			continue
		}
		switch err := checkInterface(name); {
		case err != nil:
			k.wrong(p, err)
		case name == g.Interface:
			k.report(p, "%s is the group's own interface, which is watched anyway; leave it out", name)
		case first[name]:
			k.report(p, "%s is here twice; leave it out", name)
		}
		first[name] = true
	}
	if len(g.Track.Command) > 0 {
		k.checkArgv(path+".command", g.Track.Command)
		return
	}
	if _, ok := k.keyAt[path+".command"]; ok {
		if _, ok := k.is(path + ".command"); !ok {
			return // there is one, that was not understood
		}
	}
	for _, key := range onlyWithCommand {
		if here, ok := k.keyAt[path+"."+key]; ok && !k.isDefault(path+"."+key, &g.Track, key) {
			k.bad(here, path+"."+key, "`%s` means nothing without a `command` to run; add one, or leave it out", key)
		}
	}
}

// isDefault reports whether a key of track says what holds without it.
func (k *checker) isDefault(path string, t *Track, key string) bool {
	if _, ok := k.is(path); !ok {
		return true // what it says is wrong in another way
	}
	switch key {
	case "interval":
		return t.Interval == time.Second
	case "fall":
		return t.Fall == 3
	default:
		return t.Rise == 2
	}
}
