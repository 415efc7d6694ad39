//go:build linux

package traffic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// ProberOptions says where and how often a prober connects.
type ProberOptions struct {
	Dial    DialFunc      // nil: Dial
	Network string        // as for net.Dial; "" is "tcp"
	Address string        // as for net.Dial; required
	Rate    int           // new connections per second, 1..10000; 0: 50
	Timeout time.Duration // of each connection from connect to end of stream. 0: 5 s; it must be positive
	Size    int           // bytes of the request and of its answer. 0: 64; at most 64 KiB
	Seed    uint64        // makes the IDs. 0: random ones

	// OnProbe is called when a connection is over, from several goroutines at
	// the same time; nil: nobody listens.
	OnProbe func(Probe)
}

// Probe is one connection that is over.
type Probe struct {
	StartedAt, EndedAt Instant
	Connect            time.Duration // what the connect took; 0 where it failed
	Server             string        // who answered; "" where nobody did
	Stage              string        // of the failure: connect, send, answer, end; "" where there was none
	Ending             Ending        // what the failure was; Alive where there was none
	Err                error         // nil: it was done and right
}

// A Prober opens new connections on schedule, whatever becomes of the earlier
// ones, and does one checked request on each: connect, send, read the answer,
// read the end of stream. The server ends each connection first, so that the
// client's ports are free at once. Make it with NewProber, run it with Run.
type Prober struct {
	opt ProberOptions

	mu      sync.Mutex
	probes  ProbeReport
	connect []time.Duration
	whole   []time.Duration
}

// ProbeReport is what a prober has seen.
type ProbeReport struct {
	Started   int            `json:"started"`   // connections begun
	Succeeded int            `json:"succeeded"` // of these, done and right
	Failed    int            `json:"failed"`    // of these, not
	Open      int            `json:"open"`      // of these, under way (or stopped with the prober)
	Failures  []Failure      `json:"failures,omitempty"`
	Servers   map[string]int `json:"servers,omitempty"` // successes by who answered

	ConnectP50   time.Duration `json:"connect_p50_ns"`
	ConnectP99   time.Duration `json:"connect_p99_ns"`
	ConnectWorst time.Duration `json:"connect_worst_ns"`
	P50          time.Duration `json:"p50_ns"` // of the whole, from connect to end of stream, of those that succeeded
	P99          time.Duration `json:"p99_ns"`
	Worst        time.Duration `json:"worst_ns"`
	WorstAt      Instant       `json:"worst_at,omitempty"` // when the worst one began
	Late         time.Duration `json:"late_ns"`            // the most by which the prober itself was behind its schedule

	FirstFailureAt Instant `json:"first_failure_at,omitempty"` // when the first one that failed began
	LastFailureAt  Instant `json:"last_failure_at,omitempty"`  // when the last one that failed began
}

// Failure is one connection that failed. The first 1000 are kept.
type Failure struct {
	StartedAt Instant       `json:"started_at"`
	After     time.Duration `json:"after_ns"`
	Stage     string        `json:"stage"` // connect, send, answer, end
	Ending    Ending        `json:"ending"`
	Errno     string        `json:"errno,omitempty"`
	Server    string        `json:"server,omitempty"`
	Err       string        `json:"err"`
}

const failuresKept = 1000

// NewProber makes a prober. The error names the option that is out of range.
func NewProber(o ProberOptions) (*Prober, error) {
	if o.Rate == 0 {
		o.Rate = 50
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Size == 0 {
		o.Size = 64
	}
	if o.Dial == nil {
		o.Dial = Dial
	}
	if o.Network == "" {
		o.Network = "tcp"
	}
	if o.Seed == 0 {
		o.Seed = newID()
	}
	switch {
	case o.Address == "":
		return nil, errors.New("traffic: Address is empty: say where to connect")
	case o.Rate < 0 || o.Rate > 10000:
		return nil, fmt.Errorf("traffic: Rate %d is not in 1..10000", o.Rate)
	case o.Timeout < 0:
		return nil, fmt.Errorf("traffic: Timeout %v is negative", o.Timeout)
	case o.Size < 0 || o.Size > chunkLen:
		return nil, fmt.Errorf("traffic: Size %d is not in 1..%d", o.Size, chunkLen)
	}
	return &Prober{opt: o, probes: ProbeReport{Servers: map[string]int{}}}, nil
}

// Run opens connections on schedule until ctx is over, then gives those under
// way their timeout to end, and returns the report. Canceling ctx is the
// orderly end of a prober. It is to be called once.
func (p *Prober) Run(ctx context.Context) ProbeReport {
	var wg sync.WaitGroup
	begin := time.Now()
	interval := time.Second / time.Duration(p.opt.Rate)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		due := begin.Add(time.Duration(n) * interval)
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			break
		}
		p.mu.Lock()
		p.probes.Started++
		p.probes.Open++
		p.probes.Late = max(p.probes.Late, time.Since(due))
		p.mu.Unlock()
		wg.Go(func() { p.probe(n) })
	}
	wg.Wait()
	return p.Report()
}

// probe makes one connection and books what came of it.
func (p *Prober) probe(n int) {
	// A probe has its own timeout and no other context, so that the end of the
	// prober is not counted as a failure.
	ctx, cancel := context.WithTimeout(context.Background(), p.opt.Timeout)
	defer cancel()
	at := Now()
	server, connect, stage, err := p.exchange(ctx, start{id: derive(p.opt.Seed, n), pattern: Request, size: p.opt.Size, reply: p.opt.Size, count: 1, quiet: true})
	ended := Now()
	took := ended.Sub(at)
	if p.opt.OnProbe != nil {
		ending, _ := classify(err)
		p.opt.OnProbe(Probe{StartedAt: at, EndedAt: ended, Connect: connect, Server: server, Stage: stage, Ending: ending, Err: err})
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	r := &p.probes
	r.Open--
	if err != nil {
		r.Failed++
		r.LastFailureAt = max(r.LastFailureAt, at)
		if r.FirstFailureAt == 0 || at < r.FirstFailureAt {
			r.FirstFailureAt = at
		}
		if len(r.Failures) < failuresKept {
			ending, errno := classify(err)
			r.Failures = append(r.Failures, Failure{StartedAt: at, After: took, Stage: stage, Ending: ending, Errno: errno, Server: server, Err: err.Error()})
		}
		return
	}
	r.Succeeded++
	r.Servers[server]++
	p.connect = append(p.connect, connect)
	p.whole = append(p.whole, took)
	if took > r.Worst {
		r.Worst, r.WorstAt = took, at
	}
}

// exchange does the one checked request. The start line and the request leave
// in one write: a new connection costs as few round trips as it can.
func (p *Prober) exchange(ctx context.Context, s start) (server string, connect time.Duration, stage string, err error) {
	began := Now()
	conn, err := p.opt.Dial(ctx, p.opt.Network, p.opt.Address)
	if err != nil {
		return "", 0, "connect", err
	}
	connect = Now().Sub(began)
	l := newLink(conn)
	defer l.Close()
	defer context.AfterFunc(ctx, l.Stop)()
	if _, err := l.Write(append([]byte(s.line()), newStream(s.id, up).at(0, s.size)...)); err != nil {
		return "", connect, "send", err
	}
	want := newStream(s.id, down)
	buf := make([]byte, greetingMax+s.reply)
	for n := 0; ; {
		k, err := l.Read(buf[n:])
		n += k
		i := bytes.IndexByte(buf[:n], '\n')
		if i >= 0 && server == "" {
			word, name, _ := bytes.Cut(buf[:i], []byte(" "))
			if string(word) != greetingWord {
				return "", connect, "answer", fmt.Errorf("the server answered %.40q: not a server of this package", buf[:i])
			}
			server = string(name)
		}
		got := n - i - 1
		switch {
		case i >= 0 && (got > s.reply || want.check(0, buf[i+1:n]) >= 0):
			return server, connect, "answer", fmt.Errorf("the answer is corrupt (%d bytes)", got)
		case errors.Is(err, io.EOF) && i >= 0 && got == s.reply:
			return server, connect, "", nil
		case err != nil && i >= 0 && got == s.reply:
			return server, connect, "end", err
		case errors.Is(err, io.EOF):
			return server, connect, "answer", io.ErrUnexpectedEOF
		case err != nil:
			return server, connect, "answer", err
		case n == len(buf):
			return server, connect, "answer", errors.New("the answer has no end")
		}
	}
}

// Report returns what has been seen until now.
func (p *Prober) Report() ProbeReport {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.probes
	r.Failures = slices.Clone(r.Failures)
	r.Servers = make(map[string]int, len(p.probes.Servers))
	for name, n := range p.probes.Servers {
		r.Servers[name] = n
	}
	r.ConnectP50, r.ConnectP99, r.ConnectWorst = quantiles(p.connect)
	r.P50, r.P99, _ = quantiles(p.whole)
	return r
}

// quantiles returns the median, the 99th percentile and the maximum.
func quantiles(d []time.Duration) (p50, p99, worst time.Duration) {
	if len(d) == 0 {
		return 0, 0, 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2], s[len(s)*99/100], s[len(s)-1]
}
