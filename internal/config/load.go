package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// least is a whole configuration.
const least = "`services: [{name: web, listen: \":8080\", backends: [{address: \"10.0.0.21:80\"}]}]`"

const bom = "\uFEFF"

// indices are the numbers of list entries in a path.
var indices = regexp.MustCompile(`\[[0-9]+\]`)

// Load reads and checks a file. Where the file names no node, the node has the
// host's name. The error is [Errors] for what is wrong in the file, or says in
// one sentence why it could not be read and what to do.
func Load(path string) (*Config, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	c, err := Parse(path, text)
	if err != nil || c.Node != "" {
		return c, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("%s: the host's name is not known (%w), and the node would have it; write `node: NAME` into the file", path, err)
	}
	if err := checkName(host); err != nil {
		return nil, fmt.Errorf("%s: the node would have the host's name: %w; write `node: NAME` into the file", path, err)
	}
	c.Node = host
	return c, nil
}

// readTimeout is how long a pipe may take to give all of a configuration.
const readTimeout = 10 * time.Second

// read reads a whole file that is not too large to be a configuration. It does
// not wait for ever where there is a pipe or a device in its place: a node takes
// its file while it serves, and could not be stopped meanwhile.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no file %s: write one, the least is %s, or name another with -c FILE; `holdfast relay` needs no file", path, least)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s cannot be read: permission denied; run this as root, or let this user read the file: chmod a+r %s", path, path)
	case err != nil:
		return nil, fmt.Errorf("the configuration cannot be read: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory; name the file in it, as -c %s/holdfast.yaml", path, strings.TrimRight(path, "/"))
	}
	_ = f.SetReadDeadline(time.Now().Add(readTimeout)) // a regular file knows none, and needs none
	text, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%s is a pipe or a device, and did not end within %v; name a file", path, readTimeout)
	case err != nil:
		return nil, fmt.Errorf("the configuration cannot be read: %w", err)
	}
	return text, nil
}

// Parse checks the text of a file of that name, and returns it with every
// default in place, but for Node, which is "" where the file does not say it. It
// is pure. The error is [Errors]; then there is no Config.
func Parse(name string, text []byte) (*Config, error) {
	// The library counts the two characters of a Windows line end differently in
	// different places.
	clean := strings.ReplaceAll(strings.TrimPrefix(string(text[:min(len(text), MaxFileSize)]), bom), "\r\n", "\n")
	s := newSource(name, clean)
	if len(text) > MaxFileSize {
		s.bad(Position{}, "", "the file is larger than %d MiB; this is no configuration", MaxFileSize>>20)
		return nil, s.result()
	}
	if !s.check(clean) {
		return nil, s.result()
	}
	root := s.parse(clean)
	if root == nil || root.kind == broken {
		return nil, s.result()
	}
	sum := sha256.Sum256(text)
	c := &Config{File: name, Digest: hex.EncodeToString(sum[:])[:12]}
	d := &decoder{source: s, at: make(map[string]Position), keyAt: make(map[string]Position)}
	v := reflect.ValueOf(c).Elem()
	fill(v)
	d.mapping("", root, v)
	k := checker{decoder: d, Config: c}
	k.check()
	if err := s.result(); err != nil {
		return nil, err
	}
	complete(c)
	c.places = d
	return c, nil
}

// complete fills what defaults to something else of the file.
func complete(c *Config) {
	for i := range c.Services {
		s := &c.Services[i]
		if h := &s.Health; h.TCP == nil && h.HTTP == nil && h.Exchange == nil && h.Command == nil && h.None == nil {
			h.TCP = &TCPCheck{}
		}
		for j := range s.Backends {
			if b := &s.Backends[j]; b.Name == "" {
				b.Name = b.Address.String()
			}
		}
	}
}
