// Reference writes the pages that are made from the source: docs/reference (a
// page for each key of the configuration, for each command and for the metrics)
// and docs/man. What a key is for stands at its field in internal/config, what a
// command does in internal/cli, what a metric means in internal/metrics; here
// are their layout, and of each key what a reload does with it and an example.
//
// Its test fails when something of these has no page, when a page is not what
// would be written now, and when an example is not accepted.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

//go:generate go run . ../..

// written are the directories that hold generated files, and nothing else.
var written = []string{"docs/reference", "docs/man"}

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: reference ROOT: writes the generated pages of the repository at ROOT")
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

// write makes every page, and removes what is a page no longer.
func write(root string) error {
	if runtime.GOOS != "linux" {
		return errors.New("only on Linux has the program all of its commands: generate the pages there")
	}
	pages, err := pages(root)
	if err != nil {
		return err
	}
	for _, name := range pages.names() {
		file := filepath.Join(root, name)
		if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, pages[name]) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, pages[name], 0o644); err != nil {
			return err
		}
	}
	there, err := existing(root)
	if err != nil {
		return err
	}
	for _, name := range there {
		if _, ok := pages[name]; !ok {
			if err := os.Remove(filepath.Join(root, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// existing lists the files in the directories of generated ones, from the root.
func existing(root string) ([]string, error) {
	var names []string
	for _, dir := range written {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(root, path)
			names = append(names, filepath.ToSlash(name))
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return names, nil
}
