package elector

import (
	"time"

	"github.com/holdfast-net/holdfast/vip"
)

// protocol is the version of everything but hello, welcome and replace, which
// stay as they are.
const protocol = 1

// A message has exactly one part.
type message struct {
	// From the daemon.
	Hello     *hello     `json:"hello,omitempty"`
	Replace   *replace   `json:"replace,omitempty"`
	Configure *configure `json:"configure,omitempty"`
	Alive     *alive     `json:"alive,omitempty"`
	Well      *well      `json:"well,omitempty"`
	LinkDown  *linkDown  `json:"link_down,omitempty"`
	Synced    *synced    `json:"synced,omitempty"`
	Release   *release   `json:"release,omitempty"`
	Stop      *stop      `json:"stop,omitempty"`
	Stepped   *stepped   `json:"stepped,omitempty"`

	// From either.
	Beat *beat `json:"beat,omitempty"`

	// From the elector.
	Welcome *welcome    `json:"welcome,omitempty"`
	Status  *status     `json:"status,omitempty"`
	Change  *vip.Change `json:"change,omitempty"`
	Step    *step       `json:"step,omitempty"`
	StepEnd *stepEnd    `json:"step_end,omitempty"`
	Result  *result     `json:"result,omitempty"`
	Log     *logLine    `json:"log,omitempty"`
}

// parts counts the parts that are there.
func (m *message) parts() (n int) {
	for _, there := range [...]bool{
		m.Hello != nil, m.Replace != nil, m.Configure != nil, m.Alive != nil, m.Well != nil, m.LinkDown != nil, m.Synced != nil,
		m.Release != nil, m.Stop != nil, m.Stepped != nil, m.Beat != nil, m.Welcome != nil, m.Status != nil,
		m.Change != nil, m.Step != nil, m.StepEnd != nil, m.Result != nil, m.Log != nil,
	} {
		if there {
			n++
		}
	}
	return n
}

// hello is the daemon's first message.
type hello struct {
	Protocol int    `json:"protocol"`
	Build    string `json:"build"` // which program it is, see build
	Version  string `json:"version"`
}

// welcome is the elector's first message.
type welcome struct {
	Protocol int      `json:"protocol"`
	Build    string   `json:"build"`
	Version  string   `json:"version"`
	Settings Settings `json:"settings,omitzero"` // in force

	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	RealTime bool      `json:"real_time,omitempty"`
	Locked   bool      `json:"locked,omitempty"`

	Lacks   []string `json:"lacks,omitempty"`   // of what it should have, a sentence each
	Refused string   `json:"refused,omitempty"` // why this daemon may not attach; the end
}

// replace has the elector go on as the program whose descriptor comes with it.
type replace struct{}

// configure puts settings into force; a result with its ID follows.
type configure struct {
	ID       uint64   `json:"id"`
	Settings Settings `json:"settings"`
}

// alive says that the daemon lives.
type alive struct{}

// well says whether a group is well, as far as the daemon knows.
type well struct {
	Group string `json:"group"`
	OK    bool   `json:"ok"`
	Why   string `json:"why,omitempty"`
}

// linkDown says that beats do not reach the peer.
type linkDown struct{}

// synced says whether this node has everything that the peer has, so that it may
// ask for addresses that it goes before the peer for.
type synced struct {
	OK bool `json:"ok"`
}

// release asks for a planned release of a group; a result with its ID follows.
type release struct {
	ID    uint64 `json:"id"`
	Group string `json:"group"`
	By    string `json:"by"`
}

// stop releases every group and ends the elector; a result with its ID is the
// last that comes.
type stop struct {
	ID uint64 `json:"id"`
	By string `json:"by"`
}

// stepped says that the daemon has done a step.
type stepped struct {
	ID    uint64 `json:"id"`
	Error string `json:"error,omitempty"`
}

// beat is for or from the other node's elector.
type beat struct {
	Data []byte `json:"data"`
}

// status is everything that the elector knows.
type status struct {
	Groups  []vip.Status `json:"groups"`
	Dropped uint64       `json:"dropped,omitempty"` // messages that this daemon was too slow for
}

// step asks the daemon to do something in a takeover or a release; a stepped
// with its ID is expected within Bound.
type step struct {
	ID    uint64        `json:"id"`
	Event vip.Event     `json:"event"`
	Bound time.Duration `json:"bound"`
}

// stepEnd says that nobody waits for a step any more.
type stepEnd struct {
	ID uint64 `json:"id"`
}

// result is the answer to a configure, release or stop.
type result struct {
	ID    uint64 `json:"id"`
	Error string `json:"error,omitempty"`
}

// logLine is what the elector has to say while a daemon is attached.
type logLine struct {
	At    time.Time `json:"at"`
	Level int       `json:"level"` // of slog
	Text  string    `json:"text"`
	Attrs []string  `json:"attrs,omitempty"` // key, value, key, value ...
}
