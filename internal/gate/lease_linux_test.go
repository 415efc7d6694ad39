package gate

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// The test binary is an owner too, whose process can be stopped and killed.
const (
	envOwner = "HOLDFAST_GATE_TEST_OWNER" // interface, address
	envProbe = "HOLDFAST_GATE_TEST_PROBE"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envOwner) != "":
		err := own(strings.Fields(os.Getenv(envOwner)))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case os.Getenv(envProbe) != "":
		r := Probe()
		fmt.Printf("%s|%s|%s\n", r.Answer, r.Evidence, r.Remedy)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// childLease is how long the owner's process may be silent: longer than a busy
// machine keeps it from running.
const childLease = 2 * time.Second

// own renews an address's lease for as long as it has it.
func own(args []string) error {
	index, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	g, err := Open(index)
	if err != nil {
		return err
	}
	until := soon(childLease)
	if err := g.Set(addr, Entry{Mode: Own, Until: until}); err != nil {
		return err
	}
	fmt.Println("owns")
	for range time.Tick(time.Millisecond) {
		now := sys.BootTime()
		if now >= until {
			fmt.Println("lost")
			select {}
		}
		until = now + int64(childLease)
		if err := g.Renew(addr, until); err != nil {
			return err
		}
	}
	return nil
}

// An address speaks while its lease runs, and neither a moment longer nor
// sooner than the grace after it again.
func TestLease(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		owner.give(netip.PrefixFrom(addr, owner.own.BitLen()))
		const grace = time.Second
		g := owner.withGrace(grace)
		both := []string{addr.String(), owner.own.String()}
		speaks := func(when string) {
			t.Helper()
			if by := client.answered(addr, owner); !slices.Equal(by, [][6]byte{owner.mac}) {
				t.Errorf("%s: who asks for the address is answered by %x, want %x", when, by, owner.mac)
			}
			if heard := owner.hears(client, addr, owner.own); !slices.Equal(heard, both) {
				t.Errorf("%s: the owner hears %v, want %v", when, heard, both)
			}
			if heard := client.hearsFrom(owner, addr, owner.own); !slices.Equal(heard, both) {
				t.Errorf("%s: the client hears from %v, want %v", when, heard, both)
			}
		}
		silent := func(when string) {
			t.Helper()
			if by := client.answered(addr, owner); by != nil {
				t.Errorf("%s: who asks for the address is answered by %x", when, by)
			}
			if heard := owner.hears(client, addr, owner.own); !slices.Equal(heard, both[1:]) {
				t.Errorf("%s: the owner hears %v", when, heard)
			}
			if heard := client.hearsFrom(owner, addr, owner.own); !slices.Equal(heard, both[1:]) {
				t.Errorf("%s: the client hears from %v", when, heard)
			}
		}
		speaks("before the gate knows it")
		must(t, g.Set(addr, Entry{Mode: Own, Until: soon(time.Hour)}))
		speaks("with a lease")
		if c := counters(t, g); c != (Counters{}) {
			t.Errorf("with a lease: %+v was counted", c)
		}
		must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
		silent("closed")
		c := counters(t, g)
		if c.ClosedIn != 1 || c.ClosedOut != 1 || c.AsksIn == 0 {
			t.Errorf("closed: counted %+v", c)
		}
		must(t, g.Delete(addr))
		speaks("deleted")

		// The end of a lease, to the frame: whoever is answered has asked before it.
		until := soon(50 * time.Millisecond)
		must(t, g.Set(addr, Entry{Mode: Own, Until: until}))
		for {
			before := sys.BootTime()
			by := client.answered(addr, owner)
			if before >= until && sys.BootTime() < until+int64(grace) && by != nil {
				t.Fatalf("asked %v after the end of the lease, and answered", time.Duration(before-until))
			}
			if sys.BootTime() >= until {
				break
			}
		}
		if by := client.answered(addr, owner); by != nil && sys.BootTime() < until+int64(grace) {
			t.Errorf("answered by %x after the end of the lease", by)
		}
		if heard := client.hearsFrom(owner, addr, owner.own); len(heard) != 1 && sys.BootTime() < until+int64(grace) {
			t.Errorf("heard from %v after the end of the lease", heard)
		}
		// And of the grace.
		for {
			by := client.answered(addr, owner)
			after := sys.BootTime()
			if by != nil {
				if after < until+int64(grace) {
					t.Fatalf("answered %v before the end of the grace", time.Duration(until+int64(grace)-after))
				}
				break
			}
			if after > until+int64(grace)+int64(patience) {
				t.Fatal("the grace does not end")
			}
		}
		speaks("after the grace")
	})
}

// Whatever becomes of the owner's process, the address falls silent. The next
// process finds the lease as it was.
func TestProcess(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		owner.give(netip.PrefixFrom(addr, owner.own.BitLen()))
		var cmd *exec.Cmd
		var says *bufio.Scanner
		in(t, owner.ns, func() error {
			cmd = exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", envOwner, owner.index, addr))
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			says = bufio.NewScanner(out)
			return cmd.Start()
		})
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
		}()
		line := func() string {
			if !says.Scan() {
				t.Fatal("the owner's process has ended")
			}
			return says.Text()
		}
		if got := line(); got != "owns" {
			t.Fatal(got)
		}
		// It lives on renewals.
		for end := soon(childLease + childLease/4); sys.BootTime() < end; {
			if by := client.answered(addr, owner); !slices.Equal(by, [][6]byte{owner.mac}) {
				t.Fatalf("the process lives, and the address is answered for by %x", by)
			}
		}
		must(t, cmd.Process.Signal(syscall.SIGSTOP))
		owner.await(func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
			return err == nil && strings.Contains(string(stat), ") T ")
		})
		past(t, soon(childLease))
		if by := client.answered(addr, owner); by != nil {
			t.Errorf("the process is stopped for a lease, and the address is answered for by %x", by)
		}
		must(t, cmd.Process.Signal(syscall.SIGCONT))
		if got := line(); got != "lost" {
			t.Fatal(got)
		}
		if by := client.answered(addr, owner); by != nil {
			t.Errorf("the process goes on without a lease, and the address is answered for by %x", by)
		}
		must(t, cmd.Process.Kill())
		cmd.Wait()
		if by := client.answered(addr, owner); by != nil {
			t.Errorf("the process is dead, and the address is answered for by %x", by)
		}
		g := owner.gate()
		e, ok, err := g.Entry(addr)
		if err != nil || !ok || e.Mode != Own || e.Until > sys.BootTime() {
			t.Fatalf("the next process finds %+v, %v, %v, want the lease that has ended", e, ok, err)
		}
		if by := client.answered(addr, owner); by != nil {
			t.Errorf("the next process is there, without a lease, and the address is answered for by %x", by)
		}
		must(t, g.Renew(addr, soon(time.Hour)))
		if by := client.answered(addr, owner); !slices.Equal(by, [][6]byte{owner.mac}) {
			t.Errorf("the next process has a lease, and the address is answered for by %x", by)
		}
	})
}

// While one process after the other takes the gate over, a closed address is
// not answered for once.
func TestTakeoverHasNoGap(t *testing.T) {
	owner, _, client := hosts(t, "IPv4")
	addr := floating["IPv4"].Addr()
	owner.give(floating["IPv4"])
	g := owner.gate()
	must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
	over := make(chan struct{})
	go func() {
		defer close(over)
		for range 20 {
			if err := owner.ns.Do(func() error {
				next, err := Open(owner.index)
				if err != nil {
					return err
				}
				return next.Close()
			}); err != nil {
				t.Error(err)
			}
		}
	}()
	asked := 0
	for running := true; running; asked++ {
		select {
		case <-over:
			running = false
		default:
		}
		if by := client.answered(addr, owner); by != nil {
			t.Fatalf("question %d was answered", asked)
		}
	}
	t.Logf("%d questions during 20 takeovers", asked)
}

// While an entry changes between two that both close the address, no frame
// passes.
func TestBetween(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		g := owner.gate()
		later, over := soon(time.Hour), soon(-time.Second)
		entries := []Entry{
			{Mode: Own, Until: over}, {Mode: Closed, Until: later}, {Mode: Handing, Until: over, Peer: peer.mac},
			{Mode: Taking, Until: over, Peer: peer.mac}, {Mode: Closed, Until: later}, {Mode: Passing, Until: over, Peer: peer.mac},
		}
		must(t, g.Set(addr, entries[0]))
		stop, done := make(chan struct{}), make(chan struct{})
		changes := 0
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, e := range entries {
					if err := g.Set(addr, e); err != nil {
						t.Error(err)
					}
					changes++
				}
			}
		}()
		frame := packet(client.mac, owner.mac, addr, client.own, udp, make([]byte, 8))
		passed := 0
		o := ebpf.RunOptions{Data: frame}
		for range 20000 {
			verdict, err := g.objects.HoldfastOut.Run(&o)
			if err != nil {
				t.Error(err)
				break
			}
			if verdict != drop {
				passed++
			}
		}
		close(stop)
		<-done
		if passed > 0 {
			t.Errorf("%d frames have passed during %d changes", passed, changes)
		}
	})
}

func TestRenewalAllocatesNothing(t *testing.T) {
	owner, _, _ := hosts(t, "IPv6")
	g := owner.gate()
	a, e := floating["IPv6"].Addr(), Entry{Mode: Own, Until: soon(time.Hour)}
	must(t, g.Set(a, e))
	if n := testing.AllocsPerRun(1000, func() {
		if g.Set(a, e) != nil || g.Renew(a, e.Until) != nil {
			t.Fail()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
