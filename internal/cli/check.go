package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/config"
)

// mistakes are those of a configuration file.
type mistakes []admin.ConfigError

func (m mistakes) Error() string { return count(len(m), "mistake") + " in the configuration" }

// write prints each with its place first, as compilers do, and how many they are.
func (m mistakes) write(w io.Writer) {
	for _, e := range m {
		for line := range strings.Lines(e.String()) {
			fmt.Fprintln(w, plain(strings.TrimSuffix(line, "\n")))
		}
	}
	if len(m) > 1 {
		fmt.Fprintln(w, count(len(m), "mistake"))
	}
}

// checked is the answer of check for a program.
type checked struct {
	File      string              `json:"file"`
	Valid     bool                `json:"valid"`
	Services  int                 `json:"services"`
	Backends  int                 `json:"backends"`
	Addresses int                 `json:"addresses"`
	Errors    []admin.ConfigError `json:"errors"`
}

func newCheck(s Streams) *cobra.Command {
	var file, output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether the file is valid",
		Long: `Say whether the configuration file is valid, as run and reload understand it.
Every mistake is shown, with its line and column, the text, and what to do.

Only the file is read: host names are not looked up, and addresses not tried.
So a file can be checked on any machine.

Exit codes: 0 valid, 1 not valid or not readable.`,
		Example: `  holdfast check
  holdfast check -c holdfast.yaml
  holdfast check -c holdfast.yaml -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := wantsJSON(cmd, output)
			if err != nil {
				return err
			}
			c, err := config.Load(file)
			result, err := verdict(file, c, err)
			if result != nil && asJSON {
				e := json.NewEncoder(s.Out)
				e.SetIndent("", "  ")
				e.SetEscapeHTML(false)
				if err := e.Encode(result); err != nil {
					return err
				}
				if !result.Valid {
					return exitCode(exitFailed)
				}
				return nil
			}
			if err != nil {
				return err
			}
			text := fmt.Sprintf("%s: valid: %s, %s", plain(file), count(result.Services, "service"), count(result.Backends, "backend"))
			if result.Addresses > 0 {
				text += ", " + addressCount(result.Addresses)
			}
			_, err = fmt.Fprintln(s.Out, text)
			return err
		},
	}
	registerFile(cmd, &file)
	registerOutput(cmd, &output)
	return cmd
}

// registerFile is the flag of the commands that read the file.
func registerFile(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", config.DefaultFile, "the configuration `file`")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
}

// verdict makes an answer of what came of reading the file. It is nil where the
// file could not be read.
func verdict(file string, c *config.Config, err error) (*checked, error) {
	result := &checked{File: file, Errors: []admin.ConfigError{}}
	list, ok := errors.AsType[config.Errors](err)
	switch {
	case ok:
		for _, e := range list {
			result.Errors = append(result.Errors, admin.ConfigError{
				File: cmp.Or(e.File, file), Line: e.Line, Column: e.Column, Path: e.Path, What: e.What, Excerpt: e.Excerpt,
			})
		}
		return result, mistakes(result.Errors)
	case err != nil:
		return nil, err
	}
	result.Valid, result.Services = true, len(c.Services)
	for _, g := range c.Addresses {
		result.Addresses += len(g.Addresses)
	}
	for _, s := range c.Services {
		result.Backends += len(s.Backends)
	}
	return result, nil
}
