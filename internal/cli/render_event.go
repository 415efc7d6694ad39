package cli

import (
	"fmt"
	"strings"

	"github.com/holdfast-net/holdfast/admin"
)

// An eventPrinter writes events as lines whose columns only ever move to the
// right, so that what follows stands under what came before.
type eventPrinter struct {
	view
	place int // cells of the second column
}

// line is one event: when, where, and what happened to whom and why.
func (p *eventPrinter) line(e admin.Event) string {
	place := plain(e.Service)
	if e.Backend != "" {
		place += "/" + plain(e.Backend)
	}
	if place == "" {
		place = plain(e.Group)
	}
	if place == "" {
		place = "-"
	}
	p.place = min(max(p.place, width(place), 12), 40)
	return fmt.Sprintf("%s  %s%s  %s", p.paint.paint(faint, e.Time.In(p.now.Location()).Format(stamp)), place, strings.Repeat(" ", max(p.place-width(place), 0)), p.what(e))
}

func (p *eventPrinter) what(e admin.Event) string {
	switch {
	case e.ConnectionEnd != nil:
		return p.connectionEnd(e.ConnectionEnd)
	case e.Event == admin.EventLost:
		return p.paint.paint(yellow, count(e.Count, "event")+" missing here: they came faster than they were read")
	case e.Role != nil:
		return p.role(e)
	case e.Change != nil:
		return p.change(e)
	}
	return plain(e.Event)
}

// connectionEnd is the end of a connection, or a client that got nothing.
func (p *eventPrinter) connectionEnd(c *admin.ConnectionEnd) string {
	text := fmt.Sprintf("connection %d of %s: %s", c.ID, plain(c.Client), p.cause(c))
	if told := toldText(c); told != "" {
		text += ", " + told
	}
	text += fmt.Sprintf(", after %s, %s in, %s out", span(c.Age.Duration()), size(c.BytesIn), size(c.BytesOut))
	if c.Undelivered > 0 {
		text += p.paint.paint(yellow, fmt.Sprintf(", %s not delivered", size(c.Undelivered)))
	}
	if c.Attempts > 1 {
		text += fmt.Sprintf(", %s tried", count(c.Attempts, "backend"))
	}
	if c.Detail != "" {
		text += ": " + plain(c.Detail)
	}
	return text
}

func (p *eventPrinter) cause(c *admin.ConnectionEnd) string {
	text, st := plain(c.Cause), red
	switch c.Cause {
	case "closed":
		st = green
	case "reset", "idle_timeout", "drained", "operator", "shutdown", "address":
		st = yellow
	}
	return p.paint.paint(st, text) + " by " + plain(c.By)
}

// toldText says which ends have received a RST.
func toldText(c *admin.ConnectionEnd) string {
	switch client, backend := c.ToldClient == "rst", c.ToldBackend == "rst"; {
	case client && backend:
		return "client and backend told"
	case client:
		return "client told"
	case backend:
		return "backend told"
	}
	return ""
}

func (p *eventPrinter) change(e admin.Event) string {
	c := e.Change
	state := p.paint.state(c.State)
	var text string
	switch e.Event {
	case admin.EventBackend:
		text = "backend " + state
		if c.Address != "" {
			text = "backend " + plain(c.Address) + " " + state
		}
		if c.Weight != nil {
			text += fmt.Sprintf(", weight %d", *c.Weight)
		}
	case admin.EventNode, admin.EventReload:
		text = plain(e.Event) + " " + state
	case admin.EventLimit:
		text = plain(e.Event) + " " + state
		if e.Count > 0 {
			text += ", " + price(c.State, e.Count)
		}
	case admin.EventReset:
		text = "connections " + state
	case admin.EventAddress:
		text = "addresses: " + p.paint.paint(yellow, strings.ReplaceAll(plain(c.State), "_", " "))
	default:
		text = plain(e.Event) + " " + state
	}
	if c.ByHand != "" {
		text += ", by hand of " + plain(c.ByHand)
	}
	if c.Reason != "" {
		text += ": " + plain(c.Reason)
	}
	return text
}

// price is what a limit has cost.
func price(limit string, n uint64) string {
	switch limit {
	case "accept_queue":
		return count(n, "connect") + " dropped"
	case "events":
		return count(n, "event or log line") + " lost"
	case "source_ports":
		return count(n, "connection") + " from the node's own address"
	}
	return count(n, "client") + " refused"
}
