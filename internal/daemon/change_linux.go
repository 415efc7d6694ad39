package daemon

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/relay"
)

// This file says in words how what runs differs from what ran: the sentences of
// a reload. It is pure.

// A change is one difference, as people and as machines read it.
type change struct {
	text  string // "service web: weight of w1 100 -> 50"
	event admin.Event
}

// differences lists what becomes of the services when those in force are
// replaced: the services in the order of the new file, then what is gone.
func differences(before, after []version) []change {
	var list []change
	old := make(map[string]version)
	for _, s := range before {
		old[s.Relay.Name] = s
	}
	for _, s := range after {
		was, ok := old[s.Relay.Name]
		if !ok {
			text := fmt.Sprintf("service %s added (listens on %s, %s)", s.Relay.Name,
				joined(s.Relay.Listen, " and "), plural(len(s.Relay.Backends), "backend"))
			list = append(list, serviceChange(s.Relay.Name, "added", text))
			continue
		}
		delete(old, s.Relay.Name)
		list = append(list, serviceDifferences(was, s)...)
	}
	for _, s := range before {
		if _, gone := old[s.Relay.Name]; gone {
			list = append(list, serviceChange(s.Relay.Name, "removed", "service "+s.Relay.Name+" removed"))
		}
	}
	return list
}

// A version is a service as it runs: what the file says, and what commands have
// set.
type version struct {
	ServiceOptions
	hands hands
}

func serviceChange(name, state, text string) change {
	return change{text, admin.Event{
		Event: admin.EventService, Service: name, Change: &admin.Change{State: state, Reason: text},
	}}
}

func backendChange(service string, b relay.Backend, state, text string) change {
	return change{text, admin.Event{
		Event: admin.EventBackend, Service: service, Backend: b.Name,
		Change: &admin.Change{State: state, Address: b.Address.String(), Reason: text},
	}}
}

// serviceDifferences compares two versions of one service.
func serviceDifferences(before, after version) []change {
	name := after.Relay.Name
	var list []change
	for _, key := range keys(before.ServiceOptions, after.ServiceOptions) {
		if key.before != key.after {
			text := fmt.Sprintf("service %s: %s %s -> %s", name, key.name, key.before, key.after)
			list = append(list, serviceChange(name, "changed", text))
		}
	}
	old := make(map[string]relay.Backend)
	for _, b := range before.Relay.Backends {
		if b, removed := before.hands.inForce(b); !removed {
			old[b.Name] = b
		}
	}
	stays := make(map[string]bool)
	for _, b := range after.Relay.Backends {
		b, removed := after.hands.inForce(b)
		if removed {
			continue
		}
		stays[b.Name] = true
		was, ok := old[b.Name]
		if !ok {
			text := fmt.Sprintf("service %s: backend %s added (%s)", name, b.Name, describe(b))
			if before.hands[b.Name].what == admin.DoRemove {
				text += ", no longer removed by hand"
			}
			c := backendChange(name, b, "added", text)
			c.event.Weight = &b.Weight
			list = append(list, c)
			continue
		}
		list = append(list, backendDifferences(name, was, b, before.hands[b.Name], after.hands[b.Name])...)
	}
	for _, b := range before.Relay.Backends {
		if b, ok := old[b.Name]; ok && !stays[b.Name] {
			text := fmt.Sprintf("service %s: backend %s removed (%s)", name, b.Name, b.Address)
			list = append(list, backendChange(name, b, "removed", text))
		}
	}
	return list
}

// backendDifferences compares two versions of one backend, as they run.
func backendDifferences(service string, before, after relay.Backend, handBefore, handAfter hand) []change {
	var list []change
	note := func(format string, args ...any) *change {
		text := "service " + service + ": " + fmt.Sprintf(format, args...)
		list = append(list, backendChange(service, after, "changed", text))
		return &list[len(list)-1]
	}
	if before.Address != after.Address {
		note("address of %s %s -> %s", after.Name, before.Address, after.Address)
	}
	released := handBefore.what != "" && handAfter.what == ""
	switch {
	case before.Weight != after.Weight && released:
		note("weight of %s %d, by hand -> %d, as the file says", after.Name, before.Weight, after.Weight).event.Weight = &after.Weight
	case before.Weight != after.Weight:
		note("weight of %s %d -> %d", after.Name, before.Weight, after.Weight).event.Weight = &after.Weight
	case released:
		note("weight of %s stays %d, as the file says, no longer by hand", after.Name, after.Weight)
	}
	if before.MaxConnections != after.MaxConnections {
		note("max_connections of %s %d -> %d", after.Name, before.MaxConnections, after.MaxConnections)
	}
	if before.Backup != after.Backup {
		note("backup of %s %t -> %t", after.Name, before.Backup, after.Backup)
	}
	return list
}

// describe is a backend in the brackets of a sentence.
func describe(b relay.Backend) string {
	text := b.Address.String() + ", weight " + strconv.Itoa(b.Weight)
	if b.MaxConnections > 0 {
		text += ", max_connections " + strconv.Itoa(b.MaxConnections)
	}
	if b.Backup {
		text += ", backup"
	}
	return text
}

// A key is a setting of the file, as text, before and after.
type key struct{ name, before, after string }

// keys lists the settings of a service, apart from its backends, in the order
// of the file.
func keys(before, after ServiceOptions) []key {
	b, a := before.Relay, after.Relay
	list := []key{
		{"listen", joined(b.Listen, ", "), joined(a.Listen, ", ")},
		{"balance", b.Balance.String(), a.Balance.String()},
	}
	list = append(list, healthKeys(before.Check, after.Check)...)
	return append(list,
		key{"on_backend_lost", b.OnBackendLost.String(), a.OnBackendLost.String()},
		key{"drain.timeout", b.Drain.Timeout.String(), a.Drain.Timeout.String()},
		key{"drain.idle", b.Drain.Idle.String(), a.Drain.Idle.String()},
		key{"connect_timeout", orDefault(b.ConnectTimeout, relay.DefaultConnectTimeout), orDefault(a.ConnectTimeout, relay.DefaultConnectTimeout)},
		key{"idle_timeout", b.IdleTimeout.String(), a.IdleTimeout.String()},
		key{"dead_peer_timeout", orDefault(b.DeadPeerTimeout, relay.DefaultDeadPeerTimeout), orDefault(a.DeadPeerTimeout, relay.DefaultDeadPeerTimeout)},
		key{"allow", networks(b.Allow), networks(a.Allow)},
	)
}

func healthKeys(before, after health.Check) []key {
	number := func(n, otherwise int) string { return strconv.Itoa(cmp.Or(n, otherwise)) }
	list := []key{{"health", before.Kind.String(), after.Kind.String()}}
	if before.Kind == after.Kind && !sameCheck(settings(before), settings(after)) {
		// Its texts can be long, and hold what is nobody's business in a log.
		list[0].before, list[0].after = before.Kind.String(), after.Kind.String()+" with other settings"
	}
	return append(list,
		key{"health.interval", orDefault(before.Interval, health.DefaultInterval), orDefault(after.Interval, health.DefaultInterval)},
		key{"health.timeout", orDefault(before.Timeout, health.DefaultTimeout), orDefault(after.Timeout, health.DefaultTimeout)},
		key{"health.fall", number(before.Fall, health.DefaultFall), number(after.Fall, health.DefaultFall)},
		key{"health.rise", number(before.Rise, health.DefaultRise), number(after.Rise, health.DefaultRise)},
	)
}

// settings are everything of a check but its times and rows.
func settings(c health.Check) health.Check {
	c.Interval, c.Timeout, c.Fall, c.Rise = 0, 0, 0, 0
	return c
}

// sameCheck reports whether two checks are the same one.
func sameCheck(a, b health.Check) bool { return reflect.DeepEqual(a, b) }

// orDefault is a time as the file writes it, where 0 stands for a default and a
// negative one for none.
func orDefault(d, otherwise time.Duration) string {
	return max(cmp.Or(d, otherwise), 0).String()
}

func networks(list []netip.Prefix) string {
	if len(list) == 0 {
		return "all"
	}
	return joined(list, ", ")
}

func joined[T fmt.Stringer](list []T, between string) string {
	text := make([]string, len(list))
	for i, v := range list {
		text[i] = v.String()
	}
	return strings.Join(text, between)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// sentences are the texts alone.
func sentences(list []change) []string {
	text := make([]string, len(list))
	for i, c := range list {
		text[i] = c.text
	}
	return text
}

// attrs are what a log says of it beside the sentence.
func (c change) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("change", c.text), slog.String("service", c.event.Service)}
	if c.event.Backend != "" {
		attrs = append(attrs, slog.String("backend", c.event.Backend))
	}
	return attrs
}
