package cli

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// A screen makes frames of one status after the other: rates are differences
// between two of them, and columns never become narrower. It has no clock and no
// terminal.
type screen struct {
	paint painter
	last  sample
	table table

	groups table // of addresses
}

// A sample is a status and when it was received.
type sample struct {
	admin.Status
	at time.Time
}

// rates are what happened in a second.
type rates struct{ connections, refused, in, out float64 }

// unknown are rates of what was not there before.
var unknown = rates{math.NaN(), math.NaN(), math.NaN(), math.NaN()}

func (r *rates) add(o rates) {
	r.connections, r.refused, r.in, r.out = r.connections+o.connections, r.refused+o.refused, r.in+o.in, r.out+o.out
}

// counters are what rates are made of.
type counters struct{ connections, refused, in, out uint64 }

// rate is how fast now counts since before. Whatever counts from 0 again, as a
// backend does that left and came back, is not known.
func (before counters) rate(now counters, elapsed time.Duration) rates {
	per := func(before, now uint64) float64 {
		if now < before || elapsed <= 0 {
			return math.NaN()
		}
		return float64(now-before) / elapsed.Seconds()
	}
	return rates{per(before.connections, now.connections), per(before.refused, now.refused), per(before.in, now.in), per(before.out, now.out)}
}

func serviceCounters(s admin.Service) counters {
	return counters{s.Total, s.Refused, s.BytesIn, s.BytesOut}
}

func backendCounters(b admin.Backend) counters { return counters{b.Total, 0, b.BytesIn, b.BytesOut} }

// rates finds the rates of every service ("s") and backend ("s/b").
func (s sample) rates(before sample) map[[2]string]rates {
	all := make(map[[2]string]rates)
	if before.PID != s.PID || !before.Started.Equal(s.Started) {
		return all // another process, which counts from 0
	}
	was := make(map[[2]string]counters)
	for _, sv := range before.Services {
		was[[2]string{sv.Name, ""}] = serviceCounters(sv)
		for _, b := range sv.Backends {
			was[[2]string{sv.Name, b.Name}] = backendCounters(b)
		}
	}
	elapsed := s.at.Sub(before.at)
	note := func(key [2]string, now counters) {
		if c, ok := was[key]; ok {
			all[key] = c.rate(now, elapsed)
		}
	}
	for _, sv := range s.Services {
		note([2]string{sv.Name, ""}, serviceCounters(sv))
		for _, b := range sv.Backends {
			note([2]string{sv.Name, b.Name}, backendCounters(b))
		}
	}
	return all
}

// frame is the text for st, no wider than columns and no longer than rows; 0 is
// no bound. Whatever is left out is counted.
func (s *screen) frame(st sample, columns, rows int) []string {
	found := st.rates(s.last)
	s.last = st
	return s.draw(st, found, columns, rows)
}

func (s *screen) draw(st sample, found map[[2]string]rates, columns, rows int) []string {
	v := view{now: st.at, paint: s.paint}
	lines := []string{s.title(v, st, found)}

	problems := v.problems(st.Problems)
	if most := max(rows/3, 1); rows > 0 && len(problems) > most {
		problems = append(problems[:most-1:most-1], fmt.Sprintf("  and %s: holdfast status", count(len(problems)-most+1, "more problem")))
	}
	lines = append(append(lines, problems...), "")

	s.table.room = columns
	body := s.body(v, st, found)
	if room := rows - len(lines); rows > 0 && len(body) > room {
		room = max(room, 1)
		body = append(body[:room-1:room-1], fmt.Sprintf("  and %s", count(len(body)-room+1, "more line")))
	}
	lines = append(lines, body...)
	if rows > 0 && len(lines) > rows {
		lines = lines[:rows]
	}
	if columns > 0 {
		for i, l := range lines {
			lines[i] = cut(l, columns)
		}
	}
	return lines
}

// title is the node in one line: how it is, how full, how busy.
func (s *screen) title(v view, st sample, found map[[2]string]rates) string {
	text := st.at.Format(time.TimeOnly) + "  " + v.headline(st.Status)
	var sum rates
	for _, sv := range st.Services {
		if r, ok := found[[2]string{sv.Name, ""}]; ok {
			sum.add(r)
		}
	}
	if len(found) == 0 {
		sum = unknown
	}
	for _, l := range st.Limits {
		if l.Name == "connections" {
			text += "  connections " + number(l.Used)
			if l.Max > 0 {
				text += " of " + number(l.Max)
			}
		}
	}
	text += fmt.Sprintf("  new %s  in %s  out %s", rate(sum.connections, ""), rate(sum.in, "B"), rate(sum.out, "B"))
	if sum.refused > 0 {
		text += "  " + v.paint.paint(red, "refused "+rate(sum.refused, ""))
	}
	if st.Pair != nil {
		text += "  pair " + v.paint.state(st.Pair.State)
	}
	return text + "  up " + since(st.at, st.Started)
}

// body is the groups of addresses, and the table of services and backends.
func (s *screen) body(v view, st sample, found map[[2]string]rates) (lines []string) {
	if len(st.Addresses) > 0 {
		s.groups.room = s.table.room
		v.addressRows(&s.groups, st.Addresses, false)
		lines = s.groups.lines(s.paint)
		if len(st.Services) == 0 {
			return lines
		}
		lines = append(lines, "")
	}
	s.table.columns = []column{
		left("SERVICE", 12), {title: "ADDRESS", least: 21, drop: 3}, left("STATE", 5), {title: "WEIGHT", right: true, drop: 1},
		right("ACTIVE", 7), {title: "INACTIVE", right: true, drop: 2},
		right("NEW", 8), right("IN", 9), right("OUT", 9), left("NOTE", 0),
	}
	s.table.rows = nil
	line := func(key [2]string, name, address, state, weight string, active, inactive int, note string) {
		r, ok := found[key]
		if !ok {
			r = unknown
		}
		s.table.add(name, address, v.paint.state(state), weight, strconv.Itoa(active), strconv.Itoa(inactive),
			rate(r.connections, ""), rate(r.in, "B"), rate(r.out, "B"), note)
	}
	for _, sv := range st.Services {
		line([2]string{sv.Name, ""}, v.paint.paint(bold, plain(sv.Name)), v.firstListener(sv), sv.State, "", sv.Active, sv.Inactive, v.serviceNote(sv))
		for _, b := range sv.Backends {
			line([2]string{sv.Name, b.Name}, "  "+plain(b.Name), plain(b.Address), b.State, strconv.Itoa(b.Weight), b.Active, b.Inactive, v.backendNote(b))
		}
	}
	if len(st.Services) == 0 {
		return []string{"no services"}
	}
	return append(lines, s.table.lines(s.paint)...)
}
