package holdfast_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// This file is the architecture, as rules that fail: which packages there are,
// who may import whom and why, and what every file keeps to. ARCHITECTURE.md
// tells the same as a story.

const module = "github.com/holdfast-net/holdfast"

// The limits of what one reader can hold in mind.
const (
	maxFileLines    = 800
	maxPackageLines = 5000
	maxDirect       = 12 // direct dependencies, tests included
)

// packages lists every package and its height: the tens are the layer, the ones
// the order inside it. A package imports only what stands lower.
var packages = map[string]int{
	"internal/sys":       0,
	"internal/rtnl":      5,
	"internal/netns":     5,
	"internal/tail":      5,
	"internal/systemd":   5,
	"internal/netnstest": 6,
	"internal/usertest":  6,
	"internal/probe":     6,

	"vrrp": 1,

	"announce":            10,
	"balance":             10,
	"internal/sourceport": 10,
	"sockdiag":            10,
	"internal/gate":       10,
	"internal/election":   11,
	"internal/config":     12,
	"internal/convert":    13,
	"internal/pair":       14,

	"internal/socktrace": 11,

	"relay":  20,
	"health": 20,
	"lab":    20,
	"vip":    22,

	"internal/connected": 23,

	"lab/programs": 26,
	"lab/traffic":  26,
	"lab/wire":     26,

	"admin":                  30,
	"internal/scene":         32,
	"internal/scene/operate": 33,
	"internal/scene/own":     33,
	"internal/bench":         34,

	"internal/elector": 38,

	"internal/journal":   40,
	"internal/daemon":    41,
	"internal/api":       42,
	"internal/node":      43,
	"internal/metrics":   42,
	"internal/cli":       44,
	"internal/reference": 45,
	"cmd/holdfast":       45,

	".":                  49, // documentation and this test
	"scripts/testreport": 49, // a tool of the Makefile
}

// edges lists every import between packages of this module, with its reason.
// Tests may also import what testEdges allows.
var edges = []edge{
	{"cmd/holdfast", "internal/cli", "the program is its command line"},
	{"internal/cli", "admin", "it asks a running node, and prints its answers"},
	{"internal/cli", "balance", "the words for its policies"},
	{"internal/cli", "health", "flags become a check"},
	{"internal/cli", "internal/config", "one parser of addresses, for arguments and the file"},
	{"internal/cli", "internal/convert", "what the convert command does"},
	{"internal/cli", "internal/node", "what the run command runs"},
	{"internal/cli", "internal/pair", "the keys of two nodes"},
	{"internal/cli", "internal/probe", "what the laboratory lacks here"},
	{"internal/cli", "internal/daemon", "what the relay command runs"},
	{"internal/cli", "internal/sys", "terminals; a demonstration gets more of the processors"},
	{"internal/cli", "internal/scene", "what the demo command plays"},
	{"internal/cli", "internal/scene/operate", "the scenes of a running node"},
	{"internal/cli", "internal/scene/own", "the scenes of nodes that have addresses between them"},
	{"internal/cli", "lab", "a demonstration takes everything with it, however it ends"},
	{"internal/cli", "lab/traffic", "the server that scenes run as a process"},
	{"internal/cli", "internal/journal", "what is logged and reported never waits for a terminal, a pipe or a disk"},
	{"internal/cli", "relay", "flags become a service"},
	{"internal/election", "vrrp", "what the RFC says; what is added is for a peer that says more"},
	{"internal/cli", "internal/elector", "the process that a node starts for its addresses"},
	{"internal/elector", "internal/sys", "real-time priority, who is at the other end, a program in place of this one"},
	{"internal/elector", "vip", "the owner that its process runs, and what it tells the daemon"},
	{"internal/daemon", "admin", "what it answers, and what happened, in the words of the API"},
	{"internal/daemon", "balance", "the largest weight there is"},
	{"internal/daemon", "internal/config", "the file's services become services that run"},
	{"internal/daemon", "internal/journal", "what happens is remembered, and written as lines"},
	{"internal/daemon", "health", "what a check finds reaches the relay"},
	{"internal/daemon", "internal/probe", "a port in use names its holder"},
	{"internal/daemon", "internal/sys", "the limit of descriptors, and how many are open"},
	{"internal/daemon", "relay", "it runs the relay's services"},
	{"internal/node", "admin", "it answers what the API asks"},
	{"internal/node", "internal/api", "the socket of the commands, and the listener of the metrics"},
	{"internal/node", "internal/config", "what a file says"},
	{"internal/node", "internal/daemon", "what it runs"},
	{"internal/node", "internal/elector", "the process that owns the addresses"},
	{"internal/node", "internal/pair", "the link to the other node"},
	{"internal/node", "vip", "what the elector owns, and what happens to it"},
	{"internal/node", "internal/journal", "events, and lines that never wait"},
	{"internal/node", "internal/metrics", "what it shows"},
	{"internal/node", "internal/probe", "a port in use names its holder"},
	{"internal/node", "internal/rtnl", "by which links backends are reached, so that addresses are announced there, too"},
	{"internal/node", "internal/sys", "the first process of a container frees orphans"},
	{"internal/node", "internal/systemd", "the service manager is told"},
	{"internal/config", "balance", "the words for its policies"},
	{"internal/convert", "internal/config", "what it makes is checked as every file is"},
	{"internal/bench", "internal/probe", "where the programs are that it is compared with"},
	{"internal/api", "admin", "what is asked and answered"},
	{"internal/api", "internal/journal", "those who follow events"},
	{"internal/api", "internal/probe", "a socket in use names its holder"},
	{"internal/api", "internal/sys", "who is at the other end of a socket"},
	{"internal/journal", "admin", "events as everybody reads them"},
	{"internal/journal", "relay", "the end of a connection is kept as it came, and made readable when it is read"},
	{"internal/bench", "admin", "connections are listed while requests are measured"},
	{"internal/bench", "internal/sys", "a load generator that is no bottleneck: epoll and raw sockets"},
	{"internal/bench", "internal/scene", "a takeover is played as in its scene"},
	{"internal/bench", "internal/scene/own", "how long an address has no owner that answers"},
	{"internal/bench", "lab", "client, proxy and backend are hosts of their own"},
	{"internal/reference", "internal/cli", "a page for each command"},
	{"internal/reference", "internal/config", "a page for each key"},
	{"internal/reference", "internal/metrics", "an entry for each metric"},
	{"internal/gate", "internal/probe", "whether it works here is a question of the same kind"},
	{"internal/gate", "internal/sys", "entries are memory that is shared with the kernel, and their clock is the boot clock"},
	{"internal/connected", "internal/pair", "what a node knows is copied to the other one as items of a set"},
	{"internal/connected", "internal/socktrace", "who comes and goes, and exact sequence numbers, where eBPF may be used"},
	{"internal/connected", "internal/sys", "the boot clock, by which the kernel tells when"},
	{"internal/connected", "sockdiag", "the list of sockets, where eBPF may not be used"},
	{"internal/socktrace", "internal/probe", "whether it works here is a question of the same kind"},
	{"internal/socktrace", "internal/sys", "the number by which programs know a network namespace"},
	{"internal/metrics", "admin", "a scrape is a status, in numbers"},
	{"health", "internal/sys", "an exit is awaited without being reaped, so that the group can still be killed"},
	{"internal/netns", "internal/sys", "unshare and setns"},
	{"internal/netnstest", "internal/netns", "the namespace that a test gets"},
	{"internal/netnstest", "internal/rtnl", "its loopback interface is up"},
	{"internal/pair", "internal/sys", "a peer that is silent is given up by the kernel too, and beats pass what is not sent yet"},
	{"internal/probe", "internal/netns", "whether one can be made"},
	{"internal/probe", "internal/sys", "what is asked of the kernel itself"},
	{"internal/rtnl", "internal/sys", "changes are received without waiting, which the library cannot"},
	{"sockdiag", "internal/sys", "the kernel's socket diagnosis, and TCP_INFO"},
	{"internal/systemd", "internal/sys", "CLOCK_MONOTONIC, by which systemd orders a reload and what comes after it"},
	{"internal/scene", "internal/probe", "whether HAProxy is there to be compared with"},
	{"internal/scene", "admin", "the events that a relay reports"},
	{"internal/scene", "internal/sys", "what poll, read and write say at the end of a connection, one call at a time"},
	{"internal/scene", "lab", "the network that a scene is played in, and its faults"},
	{"internal/scene", "lab/traffic", "clients and servers that check every byte"},
	{"internal/scene/own", "admin", "what a node answers"},
	{"internal/scene/own", "announce", "a neighbour that asks who has the address"},
	{"internal/scene/own", "internal/election", "how long a takeover may take"},
	{"internal/scene/own", "internal/scene", "what a scene is, and what it is played with"},
	{"internal/scene/own", "lab", "the network that a scene is played in, and its faults"},
	{"internal/scene/own", "lab/programs", "keepalived, as the other node and to be compared with"},
	{"internal/scene/own", "lab/traffic", "clients and servers that check every byte"},
	{"internal/scene/own", "vrrp", "adverts of a stranger, and how long RFC 9568 lets a router wait"},
	{"internal/scene/operate", "admin", "what a node answers"},
	{"internal/scene/operate", "internal/probe", "what is not installed cannot be put beside it"},
	{"internal/scene/operate", "internal/scene", "what a scene is, and what it is played with"},
	{"internal/scene/operate", "internal/sys", "a signal for one process of a group"},
	{"internal/scene/operate", "lab", "the network that a scene is played in"},
	{"internal/scene/operate", "lab/traffic", "clients and servers that check every byte"},
	{"lab", "internal/netns", "a host is a namespace"},
	{"vip", "internal/netns", "a second thread in the namespace of the loop"},
	{"lab", "internal/rtnl", "links, bridges, addresses and routes"},
	{"lab", "internal/tail", "what a process said, to wait for and to explain its end by"},
	{"lab", "internal/sys", "the switch on a port, processes in a namespace"},
	{"vip", "announce", "gratuitous ARP, neighbour advertisements, and questions to neighbours"},
	{"vip", "internal/election", "who may own a group, decided without a socket"},
	{"vip", "internal/gate", "a lease that ends by itself, in the kernel"},
	{"vip", "internal/rtnl", "addresses with a lifetime, and what others do to them and to links"},
	{"vip", "internal/sys", "sockets, an alarm on the boot clock, epoll"},
	{"vip", "vrrp", "the adverts that are sent and heard"},
	{"relay", "balance", "who serves the next client"},
	{"relay", "internal/sourceport", "which source port the next backend leg has"},
	{"relay", "internal/sys", "epoll, sockets without the runtime's poller, kernel counters"},
	{"lab/programs", "internal/probe", "where a server is installed, or that it is not"},
	{"lab/programs", "internal/tail", "what a program said explains why it failed"},
	{"lab/programs", "internal/sys", "a server that refuses root runs as another user"},
	{"lab/wire", "internal/sys", "an alarm that is on time"},
	{"lab/traffic", "internal/sys", "CLOCK_MONOTONIC, which several processes can compare, and the state of sockets"},
}

// testEdges lists what only tests import.
var testEdges = []edge{
	{"internal/cli", "lab/programs", "the relay is tried between real servers and their own load generators"},
	{"relay", "internal/netnstest", "addresses that come and go"},
	{"relay", "internal/rtnl", "addresses that come and go"},
	{"internal/api", "relay", "ends of connections, for streams of events"},
	{"internal/metrics", "relay", "every cause of an end is one that metrics list"},
	{"vrrp", "internal/sys", "the socket of the adverts, the alarm of the election"},
	{"vrrp", "lab", "the network between this router and keepalived"},
	{"vrrp", "lab/programs", "keepalived, in both roles"},
	{"announce", "internal/netns", "the namespaces of two hosts"},
	{"announce", "internal/netnstest", "a real kernel answers, and believes, what is sent"},
	{"announce", "internal/rtnl", "the cable between two hosts, and what they know of each other"},
	{"announce", "internal/sys", "the socket of the frames"},
	{"sockdiag", "internal/netns", "the namespace that its sockets live in"},
	{"sockdiag", "internal/netnstest", "sockets are listed and destroyed where they can do no harm"},
	{"sockdiag", "internal/rtnl", "an address of one link"},
	{"internal/sys", "internal/netns", "the namespaces of two hosts"},
	{"internal/sys", "internal/netnstest", "sockets are tried on a real link, where they can do no harm"},
	{"internal/sys", "internal/rtnl", "the cable between two hosts"},
	{"internal/gate", "announce", "questions for an address are asked, and answers read"},
	{"internal/gate", "internal/netns", "owner, peer and client are namespaces"},
	{"internal/gate", "internal/netnstest", "its programs judge real frames, where they can do no harm"},
	{"internal/gate", "internal/rtnl", "the hosts' links and addresses"},
	{"internal/gate", "internal/usertest", "the probe's answer to who has no capabilities"},
	{"internal/api", "internal/usertest", "who may ask for what is tried by real users"},
	{"internal/cli", "internal/usertest", "the relay between real programs is nobody's"},
	{"internal/socktrace", "internal/netns", "sockets of one namespace, and of others"},
	{"internal/socktrace", "internal/netnstest", "its programs see real sockets, where they can do no harm"},
	{"internal/socktrace", "internal/rtnl", "the address that is watched"},
	{"internal/connected", "internal/netns", "a node is a namespace"},
	{"internal/connected", "internal/netnstest", "it watches the sockets of a real kernel"},
	{"internal/connected", "internal/rtnl", "an address, and its removal by hand"},
	{"internal/rtnl", "internal/netns", "two ends of a cable are two namespaces"},
	{"internal/pair", "lab", "its nodes are hosts whose cables can be cut"},
	{"internal/rtnl", "internal/netnstest", "its calls are tried on a real kernel, where they can do no harm"},
	{"internal/node", "lab", "two nodes, a client and a backend"},
	{"internal/node", "internal/netnstest", "a bare container has a network of its own"},
	{"internal/scene", "internal/cli", "the test binary is holdfast too, which scenes run as a process"},
	{"internal/scene/own", "internal/cli", "the test binary is holdfast too, which scenes run as a process"},
	{"internal/scene/operate", "internal/cli", "the test binary is holdfast too, which scenes run as a process"},
	{"vip", "lab/programs", "keepalived as the other router"},
	{"vip", "lab", "nodes and clients on a switch, and what can go wrong with them"},
	{"lab/programs", "lab", "a server and its load run on hosts of their own"},
	{"lab/wire", "lab", "the wire is a cable of a laboratory"},
	{"lab/wire", "lab/traffic", "what passes the wire is checked"},
}

type edge struct{ from, to, reason string }

// modules lists every direct dependency: who may import it, and why only those.
var modules = []dependency{
	{"github.com/cilium/ebpf", []string{"internal/gate", "internal/socktrace"}, "one owner of programs on frames, whose names other processes find them by; one of programs that only look"},
	{"github.com/cockroachdb/datadriven", []string{"tests"}, "transcripts of the election: what happens, what is answered, in a text"},
	{"github.com/gopacket/gopacket", []string{"tests"}, "a second decoder, that does not share our misunderstandings"},
	{"github.com/goccy/go-yaml", []string{"internal/config"}, "one reader of YAML, behind errors that say where and what to do"},
	{"github.com/google/go-cmp", []string{"tests"}, "a difference is shown, not two walls of text"},
	{"github.com/prometheus/client_golang", []string{"internal/metrics"}, "nobody counts for Prometheus: it is shown what is known anyway"},
	{"github.com/rogpeppe/go-internal", []string{"tests"}, "testscript: the command line's tests read like a session"},
	{"github.com/spf13/cobra", []string{"internal/cli", "internal/reference"}, "only the command line has flags, and their documentation"},
	{"github.com/vishvananda/netlink", []string{"internal/rtnl"}, "one door to rtnetlink, in netip types and one form of error"},
	{"go.uber.org/goleak", []string{"tests"}, "it looks for goroutines that a test has left"},
	{"golang.org/x/sys", []string{"internal/sys"}, "one door to the kernel: what is not there is not called"},
	{"pgregory.net/rapid", []string{"tests"}, "it looks for the inputs that break a property"},
}

type dependency struct {
	path      string
	importers []string // packages; "tests" stands for the tests of all
	reason    string
}

// pure packages see no clock, no socket and no file: the same calls give the
// same answers, in a test and at three in the morning.
var pure = []string{"balance", "vrrp", "internal/election"}

// notPure is what a pure package must not import. Durations are numbers: it may
// import time for them, and only use of it what timeOfNumbers names.
var notPure = []string{"context", "log/slog", "math/rand", "math/rand/v2", "net", "os", "runtime", "sync", "syscall", "unsafe"}

// timeOfNumbers is what a pure package may use of package time.
var timeOfNumbers = []string{"Duration", "ParseDuration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}

// doors are imports that belong to one package.
var doors = []dependency{
	{"unsafe", []string{"internal/sys"}, "memory layouts stay beside the calls that need them"},
}

// listed is what go list says of one package.
type listed struct {
	ImportPath                         string
	Dir                                string
	Name                               string
	GoFiles, IgnoredGoFiles            []string
	TestGoFiles, XTestGoFiles          []string
	Imports, TestImports, XTestImports []string
}

// name is the package's path inside the module.
func (p listed) name() string { return name(p.ImportPath) }

// public says whether other modules may build on the package.
func (p listed) public() bool {
	return p.Name != "main" && p.name() != "." && !strings.Contains("/"+p.name(), "/internal/")
}

func name(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

func ours(importPath string) bool {
	return importPath == module || strings.HasPrefix(importPath, module+"/")
}

func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// run runs the go command or git in the root and returns what it prints.
func run(t *testing.T, argv ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, stderr.String())
	}
	return out
}

func list(t *testing.T) []listed {
	t.Helper()
	var all []listed
	d := json.NewDecoder(bytes.NewReader(run(t, "go", "list",
		"-json=ImportPath,Dir,Name,GoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports", "./...")))
	for d.More() {
		var p listed
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// source is one parsed file.
type source struct {
	path      string // from the root
	pkg       string
	test      bool
	generated bool
	lines     int
	ast       *ast.File
}

func sources(t *testing.T, fset *token.FileSet, all []listed) []source {
	t.Helper()
	var files []source
	for _, p := range all {
		for _, f := range slices.Concat(p.GoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles) {
			text, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := parser.ParseFile(fset, f, text, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, source{
				path:      filepath.Join(p.name(), f),
				pkg:       p.name(),
				test:      strings.HasSuffix(f, "_test.go"),
				generated: ast.IsGenerated(parsed),
				lines:     bytes.Count(text, []byte("\n")),
				ast:       parsed,
			})
		}
	}
	return files
}

func TestArchitecture(t *testing.T) {
	all := list(t)
	fset := token.NewFileSet()
	files := sources(t, fset, all)

	t.Run("packages are listed and exist", func(t *testing.T) {
		architecture, err := os.ReadFile("ARCHITECTURE.md")
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		for _, p := range all {
			seen[p.name()] = true
			if _, ok := packages[p.name()]; !ok {
				t.Errorf("package %s is not in the list in repo_test.go: give it a layer, its edges with a reason, and its line in ARCHITECTURE.md", p.name())
			}
			if p.name() != "." && !bytes.Contains(architecture, []byte(p.name())) {
				t.Errorf("package %s is not in ARCHITECTURE.md", p.name())
			}
		}
		for n := range packages {
			if !seen[n] {
				t.Errorf("package %s is listed in repo_test.go but does not exist", n)
			}
		}
	})

	t.Run("imports go down, each for a reason", func(t *testing.T) {
		used := make(map[edge]bool)
		allowed := func(from, to string, list []edge) bool {
			for _, e := range list {
				if e.from == from && e.to == to {
					used[e] = true
					return true
				}
			}
			return false
		}
		for _, p := range all {
			for _, i := range p.Imports {
				if ours(i) && !allowed(p.name(), name(i), edges) {
					t.Errorf("%s imports %s: not among the edges in repo_test.go", p.name(), name(i))
				}
			}
			for _, i := range slices.Concat(p.TestImports, p.XTestImports) {
				if ours(i) && name(i) != p.name() && !allowed(p.name(), name(i), edges) && !allowed(p.name(), name(i), testEdges) {
					t.Errorf("the tests of %s import %s: not among the edges in repo_test.go", p.name(), name(i))
				}
			}
		}
		for _, e := range slices.Concat(edges, testEdges) {
			if !used[e] {
				t.Errorf("the edge %s -> %s in repo_test.go is used by nobody", e.from, e.to)
			}
			if e.reason == "" {
				t.Errorf("the edge %s -> %s has no reason", e.from, e.to)
			}
		}
		for _, e := range edges {
			if packages[e.from] <= packages[e.to] {
				t.Errorf("the edge %s -> %s does not go down: from height %d to %d", e.from, e.to, packages[e.from], packages[e.to])
			}
		}
	})

	t.Run("dependencies are few, named, and kept behind their door", func(t *testing.T) {
		var mod struct {
			Require []struct{ Path string }
			Replace []any
		}
		if err := json.Unmarshal(run(t, "go", "mod", "edit", "-json"), &mod); err != nil {
			t.Fatal(err)
		}
		if len(mod.Replace) > 0 {
			t.Error("go.mod has a replace directive: nobody can build on a module that has one")
		}
		text, err := os.ReadFile("docs/dependencies.md")
		if err != nil {
			t.Fatal(err)
		}
		direct := make(map[string]bool)
		for _, f := range files {
			for _, spec := range f.ast.Imports {
				path := strings.Trim(spec.Path.Value, `"`)
				for _, r := range mod.Require {
					if path == r.Path || strings.HasPrefix(path, r.Path+"/") {
						direct[r.Path] = true
					}
				}
			}
		}
		for m := range direct {
			if !bytes.Contains(text, []byte("\n## "+m+"\n")) {
				t.Errorf("docs/dependencies.md does not say why %s is needed, what would be done without it, and who may import it", m)
			}
			if !slices.ContainsFunc(modules, func(d dependency) bool { return d.path == m }) {
				t.Errorf("%s is not among the modules in repo_test.go", m)
			}
		}
		if len(direct) > maxDirect {
			t.Errorf("%d direct dependencies, at most %d", len(direct), maxDirect)
		}
		for _, d := range modules {
			if !direct[d.path] {
				t.Errorf("%s is among the modules in repo_test.go, but nobody imports it", d.path)
			}
		}
		for _, f := range files {
			for _, spec := range f.ast.Imports {
				path := strings.Trim(spec.Path.Value, `"`)
				for _, d := range slices.Concat(modules, doors) {
					if path != d.path && !strings.HasPrefix(path, d.path+"/") {
						continue
					}
					if !slices.Contains(d.importers, f.pkg) && !(f.test && slices.Contains(d.importers, "tests")) {
						t.Errorf("%s imports %s: only %s may (%s)", f.path, path, strings.Join(d.importers, ", "), d.reason)
					}
				}
			}
		}
	})

	t.Run("only internal/sys calls the kernel", func(t *testing.T) {
		types := []string{"Errno", "Signal"} // a conversion is no call
		for _, f := range files {
			if f.test || f.pkg == "internal/sys" {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "syscall" && !slices.Contains(types, sel.Sel.Name) {
					t.Errorf("%s, line %d calls syscall.%s: what is asked of the kernel has a name and a document in internal/sys", f.path, fset.Position(n.Pos()).Line, sel.Sel.Name)
				}
				return true
			})
		}
	})

	t.Run("pure packages stay pure", func(t *testing.T) {
		for _, p := range all {
			if !slices.Contains(pure, p.name()) {
				continue
			}
			for _, i := range p.Imports {
				if !standard(i) && !(ours(i) && slices.Contains(pure, name(i))) || slices.Contains(notPure, i) {
					t.Errorf("%s imports %s: it is pure, and depends on nothing outside the standard library but on what is pure", p.name(), i)
				}
			}
		}
		for _, f := range files {
			if f.test || !slices.Contains(pure, f.pkg) {
				continue
			}
			for _, i := range f.ast.Imports {
				if i.Path.Value == `"time"` && i.Name != nil {
					t.Errorf("%s imports time as %s: what it uses of it can no longer be read from the calls", f.path, i.Name.Name)
				}
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && !slices.Contains(timeOfNumbers, sel.Sel.Name) {
					t.Errorf("%s uses time.%s: package %s is pure, instants are given to it", fset.Position(n.Pos()), sel.Sel.Name, f.pkg)
				}
				return true
			})
		}
	})

	t.Run("every package explains itself once", func(t *testing.T) {
		docs := make(map[string][]string)
		for _, f := range files {
			if !f.test && f.ast.Doc != nil {
				docs[f.pkg] = append(docs[f.pkg], f.path)
			}
		}
		for _, p := range all {
			if n := len(docs[p.name()]); n != 1 {
				t.Errorf("package %s has %d package comments, want one: %v", p.name(), n, docs[p.name()])
			}
		}
	})

	t.Run("public packages have an example and look for leaks", func(t *testing.T) {
		example, leaks := make(map[string]bool), make(map[string]bool)
		for _, f := range files {
			if !f.test {
				continue
			}
			for _, d := range f.ast.Decls {
				fn, ok := d.(*ast.FuncDecl)
				example[f.pkg] = example[f.pkg] || ok && strings.HasPrefix(fn.Name.Name, "Example")
			}
			for _, i := range f.ast.Imports {
				leaks[f.pkg] = leaks[f.pkg] || i.Path.Value == `"go.uber.org/goleak"`
			}
		}
		for _, p := range all {
			if !p.public() {
				continue
			}
			if !example[p.name()] {
				t.Errorf("public package %s has no example test", p.name())
			}
			if !leaks[p.name()] {
				t.Errorf("the tests of public package %s do not look for leaked goroutines (goleak in TestMain)", p.name())
			}
		}
	})

	t.Run("files and packages keep their size", func(t *testing.T) {
		lines := make(map[string]int)
		for _, f := range files {
			if f.generated || f.test {
				continue
			}
			lines[f.pkg] += f.lines
			if f.lines > maxFileLines {
				t.Errorf("%s has %d lines, at most %d", f.path, f.lines, maxFileLines)
			}
		}
		for p, n := range lines {
			if n > maxPackageLines {
				t.Errorf("package %s has %d lines, at most %d", p, n, maxPackageLines)
			}
		}
	})

	t.Run("nothing runs before main, and no test waits by sleeping", func(t *testing.T) {
		for _, f := range files {
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil {
					t.Errorf("%s has an init function: who uses what can no longer be read from the calls", fset.Position(fn.Pos()))
				}
			}
			bubble := slices.ContainsFunc(f.ast.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
			if !f.test || bubble {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
					if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
						t.Errorf("%s: %s: a test waits for what it needs, or runs in a synctest bubble", f.path, fset.Position(sel.Pos()))
					}
				}
				return true
			})
		}
	})

	t.Run("cgo is not used", func(t *testing.T) {
		for _, f := range files {
			for _, spec := range f.ast.Imports {
				if spec.Path.Value == `"C"` {
					t.Errorf("%s uses cgo: the program is one static binary", f.path)
				}
			}
		}
	})
}

// unwelcome finds what does not belong into a tracked file: paths of the machine
// it was written on, and work left for later.
var unwelcome = regexp.MustCompile(`(^|[\s"'(=` + "`" + `])/(work|root|home/[a-z]+)/|\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

func TestTrackedFiles(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "git", "ls-files", "-z").Output()
	if err != nil {
		t.Skipf("not a clone, or no git: %v", err)
	}
	files := strings.Split(strings.Trim(string(out), "\x00"), "\x00")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // a link, or removed and not committed yet
		}
		if bytes.IndexByte(text, 0) >= 0 {
			continue // not text
		}
		for n, line := range bytes.Split(text, []byte("\n")) {
			if m := unwelcome.Find(line); m != nil {
				t.Errorf("%s:%d: %q does not belong here", f, n+1, bytes.TrimSpace(m))
			}
		}
	}
}

func TestDecisionsAreListed(t *testing.T) {
	index, err := os.ReadFile("docs/decisions/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("docs/decisions/[0-9]*.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		name := filepath.Base(f)
		if !strings.HasPrefix(name, fmt.Sprintf("%04d-", i+1)) {
			t.Errorf("decision %d is %s: two have the same number, or one is missing", i+1, name)
		}
		if !bytes.Contains(index, []byte("("+name+")")) {
			t.Errorf("docs/decisions/README.md does not list %s", name)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)

func TestDocumentationLinks(t *testing.T) {
	var pages []string
	for _, dir := range []string{".", "docs"} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && path != dir && (dir == "." || strings.HasPrefix(d.Name(), ".")):
				return filepath.SkipDir
			case filepath.Ext(path) == ".md":
				pages = append(pages, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(pages) == 0 {
		t.Fatal("no pages found")
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			to := string(m[1])
			if strings.Contains(to, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), to)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, to)
			}
		}
	}
}
