package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Profile says where the relay's CPU time went during one row.
type Profile struct {
	Row     string  `json:"row"`
	Samples int     `json:"samples"`
	User    float64 `json:"user"` // share of samples, 0..1; the rest is the kernel's
	// Shares of all samples: kernel time by system call, the functions that
	// ran, and the relay's own functions with all they called.
	Syscalls []Share `json:"syscalls"`
	Self     []Share `json:"self"`
	Within   []Share `json:"within"`
	// Calls is how often each system call was made for one request, connection
	// or MB; it comes from a second run, under strace.
	Calls []Share  `json:"calls"`
	Notes []string `json:"notes,omitempty"` // what could not be measured, and why
}

// Share is a name with a number.
type Share struct {
	Name  string  `json:"name"`
	Share float64 `json:"share"`
}

const profileTime = 3 * time.Second

// profile loads the relay with one row and looks at it with perf, then again
// with strace.
func (r *runner) profile(ctx context.Context) (*Profile, error) {
	i := slices.IndexFunc(r.stands, func(s *stand) bool { return s.name == holdfast })
	j := slices.IndexFunc(r.rows, func(row Row) bool { return row.Name == r.options.profile })
	p := &Profile{Row: r.options.profile}
	switch {
	case i < 0:
		p.Notes = append(p.Notes, "no profile: holdfast did not take part")
		return p, nil
	case j < 0:
		return nil, fmt.Errorf("-profile: row %s is not measured", r.options.profile)
	}
	s, row := r.stands[i], r.rows[j]
	fmt.Fprintf(r.progress, "profile of %s\n", row.Name)

	if perf, err := exec.LookPath("perf"); err != nil {
		p.Notes = append(p.Notes, "no perf here (Debian package linux-perf): no symbols")
	} else if err := r.perf(ctx, perf, row, s, p); err != nil {
		p.Notes = append(p.Notes, fmt.Sprintf("perf: %v", err))
	}
	if strace, err := exec.LookPath("strace"); err != nil {
		p.Notes = append(p.Notes, "no strace here: system calls were not counted")
	} else if err := r.strace(ctx, strace, row, s, p); err != nil {
		p.Notes = append(p.Notes, fmt.Sprintf("strace: %v", err))
	}
	return p, ctx.Err()
}

// underLoad runs watch while the row's load runs, and then stops the load.
func (r *runner) underLoad(ctx context.Context, row Row, s *stand, window time.Duration, watch func() error) (outcome, error) {
	role := r.role(row, s, window)
	role.Warmup = 300 * time.Millisecond
	client, err := startWorker(ctx, r.site.client, r.self, role)
	if err != nil {
		return outcome{}, err
	}
	defer client.end()
	time.Sleep(role.Warmup)
	watching := make(chan error, 1)
	go func() { watching <- watch() }()
	out, err := client.outcome()
	return out, errors.Join(err, <-watching)
}

func (r *runner) perf(ctx context.Context, perf string, row Row, s *stand, p *Profile) error {
	file := filepath.Join(r.dir, "perf.data")
	_, err := r.underLoad(ctx, row, s, profileTime+time.Second, func() error {
		record := exec.CommandContext(ctx, perf, "record", "-q", "-F", "997", "--call-graph", "fp", "-o", file,
			"-p", pidList(s.pids), "--", "sleep", fmt.Sprint(profileTime.Seconds()))
		return withOutput(record)
	})
	if err != nil {
		return err
	}
	script := exec.CommandContext(ctx, perf, "script", "-i", file, "-F", "ip,sym,dso")
	out, err := script.StdoutPipe()
	if err != nil {
		return err
	}
	if err := script.Start(); err != nil {
		return err
	}
	err = p.read(out)
	return errors.Join(err, script.Wait())
}

// withOutput runs a command and, when it fails, says what it said.
func withOutput(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func pidList(pids []int) string {
	var text []string
	for _, pid := range pids {
		text = append(text, strconv.Itoa(pid))
	}
	return strings.Join(text, ",")
}

// A frame is one line of a call chain.
type frame struct {
	symbol string
	kernel bool
}

// read adds up the call chains that perf script prints: a line for each frame,
// innermost first, an empty line between chains.
func (p *Profile) read(script io.Reader) error {
	syscalls, self, within := map[string]int{}, map[string]int{}, map[string]int{}
	user := 0
	account := func(chain []frame) {
		if len(chain) == 0 {
			return
		}
		p.Samples++
		self[chain[0].symbol]++
		if chain[0].kernel {
			syscalls[syscallOf(chain)]++
		} else {
			user++
		}
		seen := map[string]bool{}
		for _, f := range chain {
			if !f.kernel && strings.HasPrefix(f.symbol, "github.com/holdfast-net/") && !seen[f.symbol] {
				seen[f.symbol] = true
				within[strings.TrimPrefix(f.symbol, "github.com/holdfast-net/holdfast/")]++
			}
		}
	}
	var chain []frame
	lines := bufio.NewScanner(script)
	for lines.Scan() {
		f, ok := parseFrame(lines.Text())
		if ok {
			chain = append(chain, f)
			continue
		}
		account(chain)
		chain = chain[:0]
	}
	account(chain)
	if p.Samples > 0 {
		p.User = float64(user) / float64(p.Samples)
	}
	p.Syscalls, p.Self, p.Within = top(syscalls, p.Samples, 8), top(self, p.Samples, 25), top(within, p.Samples, 25)
	return lines.Err()
}

// parseFrame reads "  ffffffff81c3 tcp_sendmsg ([kernel.kallsyms])".
func parseFrame(line string) (frame, bool) {
	address, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok {
		return frame{}, false
	}
	ip, err := strconv.ParseUint(address, 16, 64)
	if err != nil {
		return frame{}, false
	}
	symbol := rest
	if i := strings.LastIndex(rest, " ("); i >= 0 {
		symbol = rest[:i]
	}
	return frame{symbol: symbol, kernel: ip>>63 == 1}, true
}

// syscallOf names the system call that a kernel chain is in.
func syscallOf(chain []frame) string {
	for _, f := range chain {
		if !f.kernel {
			break
		}
		if _, name, ok := strings.Cut(f.symbol, "_sys_"); ok && strings.HasPrefix(f.symbol, "__") {
			return name
		}
	}
	return "(interrupt, switch, entry)"
}

// top returns the n largest counts as shares of total.
func top(counts map[string]int, total, n int) []Share {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], strings.Compare(a, b))
	})
	var shares []Share
	for _, name := range names[:min(n, len(names))] {
		shares = append(shares, Share{name, float64(counts[name]) / float64(total)})
	}
	return shares
}

func (r *runner) strace(ctx context.Context, strace string, row Row, s *stand, p *Profile) error {
	file := filepath.Join(r.dir, "strace")
	trace := exec.CommandContext(ctx, strace, "-f", "-c", "-U", "calls,errors,name", "-o", file, "-p", strconv.Itoa(s.pids[0]))
	out, err := r.underLoad(ctx, row, s, time.Second, func() error {
		if err := trace.Start(); err != nil {
			return err
		}
		return nil
	})
	if trace.Process != nil {
		_ = trace.Process.Signal(syscall.SIGINT) // it detaches and writes its table
		_ = trace.Wait()                         // ends as interrupted
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	per := float64(out.Count)
	if row.Load == loadBulk {
		per /= 1e6
	}
	p.Calls = callCounts(string(text), per)
	if len(p.Calls) == 0 {
		return errors.New("it counted nothing")
	}
	return nil
}

// callCounts reads the table of strace -c with the columns calls, errors, name.
func callCounts(table string, per float64) []Share {
	var calls []Share
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[len(fields)-1] == "total" {
			continue
		}
		n, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			continue
		}
		name := fields[len(fields)-1]
		if len(fields) == 3 {
			name += " (" + fields[1] + " failed)"
		}
		calls = append(calls, Share{name, n / per})
	}
	slices.SortStableFunc(calls, func(a, b Share) int { return cmp.Compare(b.Share, a.Share) })
	return calls
}

func (p *Profile) write(b *strings.Builder) {
	fmt.Fprintf(b, "\nProfile of holdfast during %s", p.Row)
	if p.Samples > 0 {
		fmt.Fprintf(b, ": %.1f %% user, %.1f %% kernel (%d samples)", 100*p.User, 100*(1-p.User), p.Samples)
	}
	fmt.Fprintln(b)
	list := func(title string, shares []Share, format string, scale float64) {
		if len(shares) == 0 {
			return
		}
		fmt.Fprintf(b, "  %s\n", title)
		for _, s := range shares {
			fmt.Fprintf(b, "    "+format+"  %s\n", scale*s.Share, s.Name)
		}
	}
	list("kernel, by system call", p.Syscalls, "%5.1f %%", 100)
	list("functions, themselves", p.Self, "%5.1f %%", 100)
	list("functions of the relay, with what they call", p.Within, "%5.1f %%", 100)
	unit := "request"
	switch {
	case strings.HasPrefix(p.Row, "bulk"):
		unit = "MB"
	case p.Row == "conns":
		unit = "connection"
	}
	list("system calls for one "+unit+" (under strace, which slows it)", p.Calls, "%7.3f", 1)
	for _, note := range p.Notes {
		fmt.Fprintf(b, "  %s\n", note)
	}
}
