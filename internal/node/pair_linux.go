package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/internal/daemon"
	"github.com/holdfast-net/holdfast/internal/pair"
)

// Numbers of what the two nodes of a pair share; see [pair.SetOptions].
const (
	tableHands = 1 // what commands have set: service/backend, a daemon.Hand
	tableParts = 2 // the digests of what must be alike: node, a line feed, the part's name
)

// A partner is the link to the other node with what goes over it.
type partner struct {
	node  *node
	log   *slog.Logger
	file  config.Pair
	keys  *pair.Keys
	link  *pair.Link
	hands *pair.Table
	parts *pair.Table
	name  string // of this node, in the tables

	wake chan struct{} // for share

	// telling is held by who tells an elector how the link stands: the newest is
	// told last. It comes before the others' locks.
	telling sync.Mutex

	mu      sync.Mutex
	state   string
	news    map[string]pair.Entry // of hands, by key, that are not taken yet
	again   bool                  // all of hands are to be looked at
	own     map[string]string     // digests of this node's parts
	digest  []byte
	differs []string
}

// openPair makes the link and listens, where the file has one. After an error
// there is nothing to close.
func openPair(n *node, c *config.Config) (_ *partner, err error) {
	if c.Pair == nil {
		return nil, nil //nolint:nilnil // a single node
	}
	p := &partner{
		node: n, log: n.log, file: *c.Pair, name: c.Node, wake: make(chan struct{}, 1), state: pair.Down, news: make(map[string]pair.Entry),
	}
	if p.keys, err = pair.LoadKeys(c.Pair.Keys); err != nil {
		return nil, fmt.Errorf("pair.keys: %w", err)
	}
	if p.hands, err = pair.NewTable(pair.TableOptions{ID: tableHands, Name: "hands", Node: c.Node, OnEntry: p.handed}); err != nil {
		return nil, err
	}
	if p.parts, err = pair.NewTable(pair.TableOptions{ID: tableParts, Name: "parts", Node: c.Node, OnEntry: func(pair.Entry) { p.rouse() }}); err != nil {
		return nil, err
	}
	p.link, err = pair.New(pair.Options{
		Listen: c.Pair.Listen.AddrPort(), Peer: c.Pair.Peer.AddrPort(), Keys: p.keys, Node: c.Node, Version: n.o.Version,
		Tables: []*pair.Table{p.hands, p.parts}, OnBeat: p.heard, OnState: p.changed, OnPeer: func(pair.Peer) { p.rouse() },
		OnAlien: p.stranger, Logger: n.log,
	})
	if err != nil {
		return nil, err
	}
	if err := p.link.Listen(); err != nil {
		return nil, fmt.Errorf("pair.listen: %w", err)
	}
	p.take(c)
	return p, nil
}

// The methods of a nil partner are a single node's.

func (p *partner) close() error {
	if p == nil {
		return nil
	}
	return p.link.Close()
}

// first reports whether this is the first of the two nodes.
func (p *partner) first() bool { return p != nil && p.keys.Number == 1 }

// number is this node's of the two, 1 or 2; 0 for a single one.
func (p *partner) number() int {
	if p == nil {
		return 0
	}
	return p.keys.Number
}

// sendBeat sends a beat of the elector's.
func (p *partner) sendBeat(beat []byte) {
	if p == nil {
		return
	}
	if err := p.link.SendBeat(beat); err != nil {
		p.log.Debug("a beat was not sent", "err", err)
	}
}

// peerName is the other node's name, once it was heard; before, its address.
func (p *partner) peerName() string {
	if p == nil {
		return "the peer"
	}
	return cmp.Or(p.link.State().Peer.Node, p.file.Peer.String())
}

// run keeps the link until ctx ends.
func (p *partner) run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.share(ctx)
	}()
	if err := p.link.Run(ctx); err != nil {
		p.log.Error("the link to the other node has ended", "err", err)
	}
	<-done
}

// heard takes a beat of the peer's. It runs on the link's goroutine.
func (p *partner) heard(beat []byte) {
	if c := p.node.addresses.elector(); c != nil {
		c.Deliver(beat)
	}
}

// changed takes another state of the link. It runs on the link's goroutine.
func (p *partner) changed(s pair.State) {
	p.tellElector()
	p.mu.Lock()
	was := p.state
	p.state = s.State
	p.mu.Unlock()
	p.rouse()
	if was == s.State {
		return
	}
	level := slog.LevelInfo
	if s.State == pair.Down {
		level = slog.LevelWarn
	}
	p.log.Log(context.Background(), level, "the link to the other node", "state", s.State, "peer", p.peerName(), "reason", s.Error)
	p.event(s.State, s.Error)
}

// tellElector tells the elector, where there is one, how the link stands.
func (p *partner) tellElector() {
	if p == nil {
		return
	}
	p.telling.Lock()
	defer p.telling.Unlock()
	c := p.node.addresses.elector()
	if c == nil {
		return // it is told when it is there
	}
	s := p.link.State()
	if s.State == pair.Down {
		c.LinkDown()
	}
	c.SetSynced(s.State == pair.Synced)
}

func (p *partner) event(state, reason string) {
	p.node.journal.Add(admin.Event{Event: admin.EventPair, Change: &admin.Change{Address: p.file.Peer.String(), State: state, Reason: reason}})
}

// stranger notes who was turned away.
func (p *partner) stranger(addr netip.AddrPort, reason string) {
	text := fmt.Sprintf("%v was turned away on the link's port: %s", addr, reason)
	p.log.Warn("a stranger on the link's port", "address", addr.String(), "reason", reason)
	p.event("stranger", text)
}

// rouse has share look.
func (p *partner) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take tells the peer of another file.
func (p *partner) take(c *config.Config) {
	if p == nil {
		return
	}
	parts := c.Shared()
	own := make(map[string]string, len(parts))
	for _, part := range parts {
		own[part.Name] = part.Digest
	}
	text, err := json.Marshal(parts)
	if err != nil { // plain data
		p.log.Error("what must be alike cannot be written", "err", err)
	}
	sum := sha256.Sum256(text)
	p.mu.Lock()
	p.own, p.digest, p.again = own, sum[:], true
	p.mu.Unlock()
	if err := p.link.SetDigest(sum[:]); err != nil {
		p.log.Error("the other node is not told of this file", "err", err)
	}
	prefix := p.name + "\n"
	for _, e := range p.parts.Entries() {
		if part, ours := strings.CutPrefix(e.Key, prefix); ours && !e.Deleted && own[part] == "" {
			p.tell(p.parts.Delete(e.Key))
		}
	}
	for part, digest := range own {
		if e, ok := p.parts.Get(prefix + part); !ok || e.Deleted || string(e.Value) != digest {
			p.tell(p.parts.Put(prefix+part, []byte(digest)))
		}
	}
	p.rouse()
}

// tell notes that something cannot be told to the peer.
func (p *partner) tell(err error) {
	if err != nil {
		p.log.Error("the other node is not told", "err", err)
	}
}

// handed notes what a command has set at the peer. It runs on the link's
// goroutine.
func (p *partner) handed(e pair.Entry) {
	p.mu.Lock()
	p.news[e.Key] = e
	p.mu.Unlock()
	p.rouse()
}

// share takes what the peer has told, until ctx ends.
func (p *partner) share(ctx context.Context) {
	for {
		p.mu.Lock()
		news, again := p.news, p.again
		p.news, p.again = make(map[string]pair.Entry), false
		p.mu.Unlock()
		if again {
			for _, e := range p.hands.Entries() {
				if _, ok := news[e.Key]; !ok && !e.Deleted {
					news[e.Key] = e
				}
			}
		}
		for _, key := range slices.Sorted(maps.Keys(news)) {
			p.takeHand(news[key])
		}
		p.compare()
		select {
		case <-p.wake:
		case <-ctx.Done():
			return
		}
	}
}

// takeHand puts into force what a command has set at the peer, or at this node
// before it was restarted.
func (p *partner) takeHand(e pair.Entry) {
	service, backend, ok := strings.Cut(e.Key, "/")
	if !ok {
		return
	}
	var err error
	if e.Deleted {
		_, err = p.node.daemon.DropHand(service, backend, "a command at "+e.Node)
	} else {
		h := daemon.Hand{}
		if err = json.Unmarshal(e.Value, &h); err == nil {
			h.Service, h.Backend = service, backend
			if e.Node != p.name {
				h.By += " at " + e.Node
			}
			_, err = p.node.daemon.TakeHand(h)
		}
	}
	if err != nil {
		p.log.Warn("a command at the other node was not followed", "service", service, "backend", backend, "err", err)
	}
}

// publish tells the peer what a command has set here.
func (p *partner) publish(service, backend string) {
	if p == nil {
		return
	}
	key := service + "/" + backend
	for _, h := range p.node.daemon.Hands() {
		if h.Service == service && h.Backend == backend {
			text, err := json.Marshal(h)
			if err == nil {
				err = p.hands.Put(key, text)
			}
			p.tell(err)
			return
		}
	}
	if e, ok := p.hands.Get(key); ok && !e.Deleted {
		p.tell(p.hands.Delete(key))
	}
}

// compare looks where the two files differ, and tells when that is news.
func (p *partner) compare() {
	s := p.link.State()
	var differs []string
	p.mu.Lock()
	if s.State == pair.Synced && s.Peer.Node == p.name {
		differs = []string{"node"}
	} else if s.State == pair.Synced && len(s.Peer.Digest) > 0 && string(s.Peer.Digest) != string(p.digest) {
		theirs := make(map[string]string)
		for _, e := range p.parts.Entries() {
			if part, ok := strings.CutPrefix(e.Key, s.Peer.Node+"\n"); ok && !e.Deleted {
				theirs[part] = string(e.Value)
			}
		}
		for part, digest := range p.own {
			if theirs[part] != digest {
				differs = append(differs, part)
			}
			delete(theirs, part)
		}
		differs = append(differs, slices.Collect(maps.Keys(theirs))...)
		slices.Sort(differs)
	} else if s.State != pair.Synced {
		differs = p.differs // as it was when the peer was last heard
	}
	news := !slices.Equal(differs, p.differs)
	p.differs = differs
	p.mu.Unlock()
	if !news {
		return
	}
	if len(differs) == 0 {
		p.log.Info("the two nodes' files agree where they must")
		p.event("configuration", "the two nodes' files agree where they must")
		return
	}
	p.log.Warn("the two nodes' files differ where they must not", "parts", strings.Join(differs, " "))
	p.event("configuration", differText(differs))
}

func differText(differs []string) string {
	return "the two nodes' files differ where they must not: " + strings.Join(differs, ", ") + "; make them alike and reload"
}

// status is the link for a listing; nil for a single node.
func (p *partner) status() *admin.Pair {
	if p == nil {
		return nil
	}
	s := p.link.State()
	p.mu.Lock()
	defer p.mu.Unlock()
	a := &admin.Pair{
		State: s.State, Since: s.Since, Listen: p.file.Listen.String(), Peer: p.file.Peer.String(), Node: s.Peer.Node, Version: s.Peer.Version,
		RTT: admin.Seconds(s.RTT), Own: shortDigest(p.digest), Digest: shortDigest(s.Peer.Digest), Differs: append([]string{}, p.differs...),
		Connects: s.Counters.Connects, Strangers: maps.Clone(s.Counters.Strangers),
	}
	if s.State == pair.Down {
		a.Reason = s.Error
	}
	if a.Strangers == nil {
		a.Strangers = map[string]uint64{}
	}
	for _, set := range s.Sets {
		a.Unprotected += uint64(set.Unacknowledged)
	}
	return a
}

func shortDigest(b []byte) string { return hex.EncodeToString(b[:min(len(b), 6)]) }

// syncGrace is how long a link may be syncing before that is a problem.
const syncGrace = 10 * time.Second

func (p *partner) problems() (list []admin.Problem) {
	if p == nil {
		return nil
	}
	s := p.status()
	switch {
	case s.State == pair.Down:
		text := "the link to the other node (" + p.peerName() + ") is down"
		if s.Reason != "" {
			text += ": " + s.Reason
		}
		list = append(list, admin.Problem{Code: admin.ProblemPairDown, Text: text, Since: s.Since})
	case s.State == pair.Syncing && time.Since(s.Since) > syncGrace:
		list = append(list, admin.Problem{
			Code: admin.ProblemPairSyncing, Text: "the other node does not have everything yet", Since: s.Since,
		})
	}
	if len(s.Differs) > 0 {
		list = append(list, admin.Problem{Code: admin.ProblemConfiguration, Text: differText(s.Differs), Since: s.Since})
	}
	return list
}
