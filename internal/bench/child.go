package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"time"
)

// roleVariable carries a child's [role], as JSON, in its environment.
const roleVariable = "HOLDFAST_BENCH_ROLE"

// A role says what a child process is: the backend, or one cell's load.
type role struct {
	Listen netip.AddrPort // the backend listens here; a client has none
	Target netip.AddrPort // the client connects here

	Load        loadKind
	Connections int
	Loops       int
	Warmup      time.Duration // load before the window, not counted
	Window      time.Duration // what counts
	PIDs        []int         // processes whose CPU time in the window counts
	Backend     int           // the backend's process
}

// loadKind is what a client does with its connections.
type loadKind string

const (
	loadRequests loadKind = "requests" // each sends 64 bytes, waits for the answer, and again
	loadConnects loadKind = "connects" // the same once, then closes and connects anew
	loadBulk     loadKind = "bulk"     // each asks once and reads without end
	loadIdle     loadKind = "idle"     // the same as requests once, then holds the connection
	loadListing  loadKind = "listing"  // requests, beside idle ones that are listed; of the run, not of a client
)

// An outcome is what a client measured in its window; it is printed as one line
// of JSON.
type outcome struct {
	Seconds    float64       // length of the window
	Count      uint64        // requests, connections, or bytes
	P50, P99   time.Duration // of a request or a whole connection
	CPU        time.Duration // of the processes in role.PIDs
	LoadCPU    time.Duration // of client and backend
	Errors     int
	FirstError string `json:",omitempty"`
}

// child does the work of a child process and reports true, if this process was
// started as one. The main function calls it first; so does TestMain.
func child() bool {
	text, ok := os.LookupEnv(roleVariable)
	if !ok {
		return false
	}
	if err := runChild(text, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	return true
}

func runChild(text string, stdin io.Reader, stdout io.Writer) error {
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return fmt.Errorf("%s: %w", roleVariable, err)
	}
	// One more than the loops that may wait in the kernel, and one for the
	// clock: with an idle P the runtime lets a waiting loop keep its own.
	runtime.GOMAXPROCS(r.Loops + 2)
	if r.Listen.IsValid() {
		return serve(r, stdin, stdout)
	}
	return generate(r, stdin, stdout)
}

// untilParentGone blocks until the parent closes the child's standard input or
// dies, which closes it too.
func untilParentGone(stdin io.Reader) { _, _ = io.Copy(io.Discard, stdin) }
