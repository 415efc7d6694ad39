package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/internal/convert"
)

func newConvert(s Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "convert FILE",
		Short: "Make a holdfast.yaml of a keepalived.conf",
		Long: `Make a holdfast.yaml of a keepalived.conf, on standard output. What cannot be
carried over, or means something else here, is named on standard error with its
line and column, and stands as a comment beside what it belongs to.

A vrrp_instance becomes a group of addresses; the instances of a vrrp_sync_group
that are on one interface become one group. A virtual_server for TCP becomes a
service. Included files are read, relative to the file that includes them.

The result is checked as holdfast check does. Where it is not valid, or nothing
could be converted, the exit code is 1.`,
		Example: `  holdfast convert /etc/keepalived/keepalived.conf | tee holdfast.yaml
  holdfast check -c holdfast.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usage(cmd, errors.New("FILE is missing: which keepalived.conf?"))
			case len(args) > 1:
				return usage(cmd, fmt.Errorf("%q is too much: one file at a time; included files are found", args[1:]))
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"conf"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return convertFile(s, args[0])
		},
	}
}

func convertFile(s Streams, file string) error {
	text, err := readConverted(file)
	if err != nil {
		return err
	}
	r, err := convert.Keepalived(file, text, convert.Options{Include: included})
	if err != nil {
		return err
	}
	if _, err := s.Out.Write(r.YAML); err != nil {
		return err
	}
	for _, n := range r.Notes {
		fmt.Fprintln(s.Err, plain(n.String()))
	}
	if r.Check == nil {
		return nil
	}
	if errs, ok := errors.AsType[config.Errors](r.Check); ok {
		return fmt.Errorf("what was made of %s is not a valid configuration: %s", file, errs[0].What)
	}
	return r.Check
}

// readConverted reads a file that is not too large to be a configuration.
func readConverted(file string) ([]byte, error) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no file %s", file)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file; name one", file)
	case info.Size() > config.MaxFileSize:
		return nil, fmt.Errorf("%s is larger than %d MiB; this is no configuration", file, config.MaxFileSize>>20)
	}
	return os.ReadFile(file)
}

// included reads the files that a pattern names, sorted by name.
func included(pattern string) ([]convert.File, error) {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("%s is no pattern of files", pattern)
	}
	var files []convert.File
	for _, name := range names {
		text, err := readConverted(name)
		if err != nil {
			return nil, err
		}
		files = append(files, convert.File{Name: name, Text: text})
	}
	return files, nil
}
