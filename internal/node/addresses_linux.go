package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/internal/daemon"
	"github.com/holdfast-net/holdfast/internal/elector"
	"github.com/holdfast-net/holdfast/vip"
)

// Times of what the daemon does for its addresses.
const (
	engineInterval = time.Second      // between looks whether the event loops answer
	engineBound    = 10 * time.Second // within which they must
	noteLasts      = time.Minute      // of what happened once and is a problem for a while
	stopBound      = 10 * time.Second // of withdrawing what is left at the end
	firstTry       = time.Second      // until an elector that could not be had is tried again
	lastTry        = 10 * time.Second // likewise, at most
)

// addresses is the daemon's part in the groups of addresses: the elector's client,
// what is tracked, who is notified, and what is told to connections.
type addresses struct {
	node *node
	log  *slog.Logger

	// attaching is held by who gets the first elector, or tells it of a file; it
	// comes before mu.
	attaching sync.Mutex

	// mu guards what follows, for moments.
	mu      sync.Mutex
	wanted  *elector.Settings  // of an elector that could not be had; nil: none is wanted
	lacking error              // why it could not
	since   time.Time          // of that
	refused error              // why the elector that is there did not take the last file; nil: it did
	refusal time.Time          // when it first did not
	giveUp  context.CancelFunc // of who tries again; nil: nobody does
	client  *elector.Client    // nil: there were no groups since the start
	ctx     context.Context    // of what runs for the groups; nil before run
	end     context.CancelFunc
	due     []func(context.Context) // what run is to start
	served  func() error            // ends the client, and waits for it; nil: it does not run
	groups  []*floatingGroup
	engines error // why the event loops do not answer; nil when they do
	down    downtime
	tasks   sync.WaitGroup // grows under mu, while ctx has not ended
}

// downtime says since when there is no elector.
type downtime struct {
	since time.Time // of the state
	why   string    // "" when one is there
}

// A floatingGroup is a group of addresses with what the daemon does for it.
type floatingGroup struct {
	file     config.AddressGroup
	services []string
	tracker  *tracker // nil: no command
	notifier *notifier

	// Guarded by addresses.mu.
	known   bool                    // what the command said, or there is none
	tracked string                  // why it is not well; "" when it is
	told    *string                 // why, as the elector was told last; nil: nothing yet
	fresh   bool                    // its elector has just begun, and was never well before
	by      string                  // who asked for the release that is under way
	notes   map[vip.Kind]vip.Change // the last of each kind that is a problem for a while
}

func newAddresses(n *node) *addresses {
	return &addresses{node: n, log: n.log}
}

// settings is what the elector is told of a file. services are those of the file,
// in its order, with the addresses of their backends.
func (n *node) settings(c *config.Config, services []daemon.ServiceOptions) elector.Settings {
	s := elector.Settings{Node: c.Node}
	var everywhere []int
	for i := range c.Services {
		if slices.ContainsFunc(c.Services[i].Listen, everyAddress) {
			everywhere = append(everywhere, i)
		}
	}
	for i := range c.Addresses {
		g := &c.Addresses[i]
		on := c.ServicesOf(g)
		v := elector.Group{Group: vip.Group{
			Name: g.Name, Interface: g.Interface, Addresses: slices.Clone(g.Addresses), Track: slices.Clone(g.Track.Interfaces),
			NeedsAlive: len(on) > 0 || len(g.Track.Command) > 0,
		}, Steps: len(on)+len(everywhere) > 0}
		for _, i := range slices.Concat(on, everywhere) {
			v.Drain = max(v.Drain, drainBound(c.Services[i].Drain))
		}
		if r := g.VRRP; r != nil {
			v.VRRP = &vip.VRRP{
				ID: uint8(r.ID), Priority: uint8(r.Priority), Interval: r.Interval, Preempt: r.Preempt, PreemptDelay: r.PreemptDelay,
				Peers: slices.Clone(r.Peers),
			}
			if c.Pair != nil {
				v.Peered, v.First = true, n.pair.first()
				v.Witness = witness(c.Pair.Witness, g)
			}
		}
		s.Groups = append(s.Groups, v)
	}
	if err := announceOn(s.Groups, c, services); err != nil {
		n.log.Warn("the addresses are announced on their own interfaces alone", "err", err)
	}
	return s
}

// drainBound is how long a planned move waits for a service's connections at most.
// Who may take as long as he likes, unless he is idle, may not keep an address here
// for ever.
func drainBound(d config.Drain) time.Duration {
	if d.Timeout == 0 && d.Idle > 0 {
		return vip.MaxStepBound
	}
	return min(d.Timeout, vip.MaxStepBound)
}

// everyAddress reports whether who connects to a group's address can come to a
// listener that is on no address of its own: he is told as well when it leaves.
func everyAddress(a config.Address) bool {
	return !a.IsUnix() && a.Host == "" && (!a.Addr.IsValid() || a.Addr.IsUnspecified())
}

// witness is the one of a group: a host of one of its networks; where the lengths
// tell of no network, one of its families.
func witness(w netip.Addr, g *config.AddressGroup) netip.Addr {
	for _, p := range g.Addresses {
		if w.IsValid() && p.Addr().Is4() == w.Is4() && (p.Masked().Contains(w) || p.IsSingleIP()) {
			return w
		}
	}
	return netip.Addr{}
}

// open attaches to the elector, or starts one, if there is anything to own.
func (a *addresses) open(ctx context.Context, c *config.Config, services []daemon.ServiceOptions) error {
	a.take(c)
	if len(c.Addresses) == 0 {
		return nil
	}
	return a.attach(ctx, c.Directories.Runtime, a.node.settings(c, services))
}

func (a *addresses) attach(ctx context.Context, runtime string, s elector.Settings) error {
	client, err := elector.Open(ctx, elector.Options{
		Runtime: runtime, Version: a.node.o.Version, Settings: s, Logger: a.log,
		Program: a.node.o.Elector, OnChange: a.changed, OnBeat: a.node.pair.sendBeat, OnStep: a.step, OnElector: a.electorChanged,
	})
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	had := make(map[string]bool)
	for _, g := range client.Found().Groups {
		had[g.Name] = true
	}
	a.mu.Lock()
	a.client = client
	a.down = downtime{since: time.Now()}
	for _, g := range a.groups {
		g.fresh = !had[g.file.Name]
		// What a running elector was told by the daemon before holds until this one
		// knows better; where no command is to say so, it does.
		if g.known || !had[g.file.Name] {
			a.judge(g)
		}
	}
	a.mu.Unlock()
	a.node.pair.tellElector()
	return nil
}

// close lets go of an elector that was never run.
func (a *addresses) close() error {
	if c := a.elector(); c != nil {
		return c.Close()
	}
	return nil
}

func (a *addresses) elector() *elector.Client {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.client
}

// take makes the groups those of the file. What has changed is to be told to the
// elector as well.
func (a *addresses) take(c *config.Config) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.groups
	a.groups = nil
	for i := range c.Addresses {
		file := c.Addresses[i]
		j := slices.IndexFunc(old, func(g *floatingGroup) bool { return g.file.Name == file.Name })
		g := &floatingGroup{fresh: true, notes: make(map[vip.Kind]vip.Change)}
		if j >= 0 {
			g = old[j]
			old = slices.Delete(old, j, j+1)
		}
		was := g.file.Track
		g.file, g.services = file, nil
		for _, i := range c.ServicesOf(&file) {
			g.services = append(g.services, c.Services[i].Name)
		}
		if g.notifier == nil {
			g.notifier = newNotifier(a.log, a.noted)
			a.start(func(ctx context.Context) { g.notifier.run(ctx) })
		}
		if g.tracker == nil || !sameTrack(was, file.Track) {
			a.retrack(g)
		}
		a.groups = append(a.groups, g)
	}
	for _, g := range old {
		g.stop()
	}
}

// retrack has another command run for a group. The caller holds mu.
func (a *addresses) retrack(g *floatingGroup) {
	if g.tracker != nil {
		if g.tracker.end != nil {
			g.tracker.end()
		}
		g.tracker = nil
	}
	if len(g.file.Track.Command) == 0 {
		g.known, g.tracked = true, ""
		return
	}
	if first := g.told == nil; first {
		g.known, g.tracked = false, "the tracked command "+g.file.Track.Command[0]+" has not ended yet for the first time"
	}
	name := g.file.Name
	var t *tracker
	t = newTracker(name, g.file.Track, func() string { return a.role(name) }, func(ok bool, why string) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if g.tracker != t {
			return
		}
		g.known, g.tracked = true, why
		a.judge(g)
	})
	g.tracker = t
	a.start(func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		a.mu.Lock()
		t.end = cancel
		gone := g.tracker != t
		a.mu.Unlock()
		if !gone {
			t.run(ctx)
		}
	})
}

// stop ends what runs for a group that is gone. The caller holds mu.
func (g *floatingGroup) stop() {
	if g.tracker != nil && g.tracker.end != nil {
		g.tracker.end()
	}
	g.tracker = nil
	g.notifier.close()
}

// start runs a task of a group: now, or when run is called. The caller holds mu.
func (a *addresses) start(task func(context.Context)) {
	if a.ctx != nil && a.ctx.Err() == nil {
		ctx := a.ctx
		a.tasks.Go(func() { task(ctx) })
		return
	}
	if a.ctx == nil {
		a.due = append(a.due, task)
	}
}

// judge tells the elector whether a group is well, where that is news. The caller
// holds mu.
func (a *addresses) judge(g *floatingGroup) {
	why := g.tracked
	if why == "" && a.engines != nil && len(g.services) > 0 {
		why = "the event loops do not answer: " + a.engines.Error()
	}
	if a.client == nil || g.told != nil && *g.told == why {
		return
	}
	g.told = &why
	a.client.SetWell(g.file.Name, why == "", why)
}

// role is this node's for a group, in the words of the API.
func (a *addresses) role(name string) string {
	if c := a.elector(); c != nil {
		for _, st := range c.Groups() {
			if st.Group == name {
				return st.Role.String()
			}
		}
	}
	return admin.RoleFault
}

// run begins what is done for the groups until stop, and watches the engines until
// ctx ends.
func (a *addresses) run(ctx context.Context) {
	a.mu.Lock()
	a.ctx, a.end = context.WithCancel(context.Background())
	due := a.due
	a.due = nil
	for _, task := range due {
		a.start(task)
	}
	if a.client != nil && a.served == nil {
		a.serve(a.client)
	}
	a.mu.Unlock()
	a.watchEngines(ctx)
}

// serve runs the elector's client until the node has ended. The caller holds mu.
func (a *addresses) serve(c *elector.Client) {
	a.served = background(c.Run)
}

// watchEngines looks whether the event loops answer, as what owns an address and
// serves nobody had better let go of it.
func (a *addresses) watchEngines(ctx context.Context) {
	ticker := time.NewTicker(engineInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		bounded, cancel := context.WithTimeout(ctx, engineBound)
		err := a.node.daemon.Ping(bounded)
		cancel()
		if ctx.Err() != nil {
			return
		}
		a.mu.Lock()
		a.engines = err
		for _, g := range a.groups {
			if g.known {
				a.judge(g)
			}
		}
		a.mu.Unlock()
	}
}

// step does the daemon's part in a move.
func (a *addresses) step(ctx context.Context, e vip.Event) error {
	addrs := make([]netip.Addr, len(e.Addresses))
	for i, p := range e.Addresses {
		addrs[i] = p.Addr()
	}
	switch e.When {
	case vip.Draining:
		a.node.daemon.DrainAddresses(ctx, addrs)
	case vip.BeforeWithdraw, vip.AfterWithdraw:
		why := fmt.Sprintf("%s is given up: %s", e.Group, e.Cause)
		n := a.node.daemon.ResetAddresses(addrs, why)
		if n > 0 {
			a.log.Info("connections were told that their address leaves", "group", e.Group, "connections", n, "when", e.When.String())
		}
	case vip.BeforeAddress, vip.AfterAnnounce:
	}
	return nil
}

// electorChanged notes that the elector is gone, or there again.
func (a *addresses) electorChanged(there bool, why string) {
	a.mu.Lock()
	a.down = downtime{since: time.Now()}
	state := "elector up"
	for _, g := range a.groups {
		g.fresh = true
	}
	if !there {
		a.down.why = why
		state = admin.ProblemElectorDown
	}
	a.mu.Unlock()
	a.node.journal.Add(admin.Event{Event: admin.EventAddress, Change: &admin.Change{State: state, Reason: "the process that owns the addresses: " + why}})
}

// apply takes another file, of which everything was checked that can be, and says
// what has changed. s is what the elector is told of it.
func (a *addresses) apply(ctx context.Context, was, now *config.Config, s elector.Settings) (changes []string) {
	a.take(now)
	changes = groupChanges(was.Addresses, now.Addresses)
	a.attaching.Lock()
	defer a.attaching.Unlock()
	client := a.elector()
	var err error
	switch {
	case client != nil:
		err = client.Configure(ctx, s)
		a.configured(err)
	case len(now.Addresses) > 0:
		if err = a.first(ctx, now.Directories.Runtime, s); err != nil {
			a.tryAgain(now.Directories.Runtime)
		}
	default:
		a.mu.Lock()
		a.wanted, a.lacking = nil, nil
		a.mu.Unlock()
	}
	if err != nil {
		a.log.Error("the elector did not take the groups of addresses", "err", err)
		return append(changes, "addresses: not in force: "+err.Error())
	}
	a.mu.Lock()
	for _, g := range a.groups {
		a.judge(g)
	}
	a.mu.Unlock()
	for _, c := range changes {
		a.log.Info("changed", "change", c)
	}
	return changes
}

// configured notes whether the elector took a file. One that it did not take is a
// problem until a later one is taken.
func (a *addresses) configured(err error) {
	a.mu.Lock()
	was := a.refused
	if a.refused = err; was == nil {
		a.refusal = time.Now()
	}
	a.mu.Unlock()
	switch {
	case err != nil:
		a.noted("", admin.ProblemAddressSettings, refusedText(err))
	case was != nil:
		a.noted("", "well", "the groups of addresses are as the file says")
	}
}

func refusedText(err error) string {
	return "the groups of addresses are not as the file says: the elector did not take them: " + err.Error() +
		"; what it had before holds: look at its problems, if there are any, correct the file, and reload"
}

// first gets the first elector of a node that runs, or notes that it lacks one.
// The caller holds attaching.
func (a *addresses) first(ctx context.Context, runtime string, s elector.Settings) error {
	err := a.attach(ctx, runtime, s)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		if a.lacking == nil {
			a.since = time.Now()
		}
		a.wanted, a.lacking = &s, err
		return err
	}
	a.wanted, a.lacking = nil, nil
	a.serve(a.client)
	for _, g := range a.groups {
		a.judge(g)
	}
	return nil
}

// tryAgain has somebody get the elector that could not be had, until it is there
// or no file wants one.
func (a *addresses) tryAgain(runtime string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.giveUp != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.giveUp = cancel
	a.start(func(groups context.Context) {
		defer cancel()
		defer context.AfterFunc(groups, cancel)()
		for pause := firstTry; ; pause = min(2*pause, lastTry) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if a.tryOnce(ctx, runtime) {
				return
			}
		}
	})
}

// tryOnce reports whether nobody has to try again.
func (a *addresses) tryOnce(ctx context.Context, runtime string) bool {
	a.attaching.Lock()
	defer a.attaching.Unlock()
	a.mu.Lock()
	s := a.wanted
	if s == nil {
		a.giveUp = nil
	}
	a.mu.Unlock()
	if s == nil || ctx.Err() != nil {
		return true
	}
	if err := a.first(ctx, runtime, *s); err != nil {
		a.log.Error("the elector could still not be started; it is tried again", "err", err)
		return false
	}
	a.mu.Lock()
	a.giveUp = nil
	a.mu.Unlock()
	a.log.Info("the elector is there, and the groups of addresses are in force")
	a.node.journal.Add(admin.Event{Event: admin.EventAddress, Change: &admin.Change{State: "elector up", Reason: "the process that owns the addresses: it could be started at last"}})
	return true
}

// Addresses implements api.Node.
func (n *node) Addresses() []admin.AddressGroup { return n.addresses.list() }

// releaseTargets are the groups that a command means.
func (a *addresses) releaseTargets(what string) ([]vip.Status, error) {
	client := a.elector()
	var all []vip.Status
	if client != nil {
		all = client.Groups()
	}
	if what == "" {
		return slices.DeleteFunc(all, func(s vip.Status) bool { return s.Role != vip.Active }), nil
	}
	addr, _ := netip.ParseAddr(strings.Split(what, "/")[0])
	var names []string
	for _, s := range all {
		if s.Group == what || addr.IsValid() && slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr() == addr.Unmap() }) {
			if s.Role == vip.Active {
				return []vip.Status{s}, nil
			}
			owner := a.owner(s)
			if owner == "" {
				owner = "nobody that this node hears"
			}
			return nil, &admin.Error{
				Code: admin.CodeRefused, Text: fmt.Sprintf("this node does not own %s: it is %s, and the owner is %s", s.Group, s.Role, owner),
				Remedy: "release it at the node that owns it",
			}
		}
		names = append(names, s.Group)
	}
	e := &admin.Error{Code: admin.CodeUnknown, Text: "this node has no group and no address " + what, Remedy: "it has none at all; add `addresses` to its file"}
	if len(names) > 0 {
		e.Remedy = "it has the groups " + strings.Join(names, ", ")
	}
	return nil, e
}

// Release implements api.Node.
func (n *node) Release(ctx context.Context, what, by string) (admin.ReleaseResult, error) {
	a := n.addresses
	r := admin.ReleaseResult{Groups: []admin.Released{}}
	if n.stopping.Load() {
		return r, &admin.Error{Code: admin.CodeRefused, Text: "the node is stopping, and gives everything up", Remedy: "wait until it has ended"}
	}
	targets, err := a.releaseTargets(what)
	if err != nil {
		return r, err
	}
	r.Groups = make([]admin.Released, len(targets))
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, s := range targets {
		wg.Go(func() { r.Groups[i], errs[i] = a.release(ctx, s, by) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		var text []string
		for _, err := range errs {
			if err != nil {
				text = append(text, err.Error())
			}
		}
		return r, &admin.Error{Code: admin.CodeRefused, Text: strings.Join(text, "; "), Remedy: "holdfast status says what stands in the way"}
	}
	return r, nil
}

// release gives one group up.
func (a *addresses) release(ctx context.Context, s vip.Status, by string) (admin.Released, error) {
	a.withGroup(s.Group, func(g *floatingGroup) { g.by = by })
	defer a.withGroup(s.Group, func(g *floatingGroup) { g.by = "" })
	client := a.elector()
	began := time.Now()
	if err := client.Release(ctx, s.Group, by); err != nil {
		return admin.Released{}, err
	}
	done := admin.Released{Group: s.Group, Took: admin.Seconds(time.Since(began))}
	list := make([]string, len(s.Addresses))
	for i, p := range s.Addresses {
		list[i] = p.Addr().String()
	}
	text := fmt.Sprintf("%s (%s)", s.Group, strings.Join(list, ", "))
	switch {
	case s.Peer.Linked:
		done.Owner = a.node.pair.peerName()
		done.Text = fmt.Sprintf("%s is %s's now", text, done.Owner)
	case s.Priority > 0:
		done.Text = text + " was given up, and the other routers know"
	default:
		done.Text = text + " was withdrawn: nobody owns it until the next reload or start of this node"
	}
	return done, nil
}

func (a *addresses) withGroup(name string, f func(*floatingGroup)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range a.groups {
		if g.file.Name == name {
			f(g)
		}
	}
}

// leave hands over what another node can take, before this one stops serving.
func (a *addresses) leave(ctx context.Context, why string) {
	client := a.elector()
	if client == nil {
		return
	}
	var wg sync.WaitGroup
	for _, s := range client.Groups() {
		// Where a peer of ours is not there, those who are here may end first.
		if s.Role != vip.Active || s.Priority == 0 || a.node.pair != nil && !s.Peer.Linked {
			continue
		}
		wg.Go(func() {
			if _, err := a.release(ctx, s, why); err != nil {
				a.log.Warn("a group was not handed over", "group", s.Group, "err", err)
			}
		})
	}
	wg.Wait()
}

// stop withdraws what is left and ends the elector; the node has no connection
// any more. It returns when everything of the addresses has ended.
func (a *addresses) stop(why string) {
	a.mu.Lock()
	if a.giveUp != nil {
		a.giveUp()
	}
	a.mu.Unlock()
	a.attaching.Lock() // an elector that is just being started is stopped as well
	client := a.elector()
	a.attaching.Unlock()
	if client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopBound)
		if err := client.Stop(ctx, why); err != nil {
			a.log.Error("the elector did not stop in order: it gives up by itself what needs this node", "err", err)
		}
		cancel()
	}
	a.mu.Lock()
	served := a.served
	a.mu.Unlock()
	if served != nil {
		if err := served(); err != nil {
			a.log.Error("the elector's client ended", "err", err)
		}
	}
	a.mu.Lock()
	if a.end != nil {
		a.end()
	}
	a.mu.Unlock()
	a.tasks.Wait() // the last roles are told, too
}
