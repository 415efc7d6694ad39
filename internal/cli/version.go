package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which build this is",
		Long: `Say which build this is: the version or the commit, and what it was built with. A
running node says its own in status; the two differ between an installation and a
restart.`,
		Example: `  holdfast version
  holdfast version | head -1`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printVersion(cmd.OutOrStdout())
		},
	}
}

// version is that of the module, "devel" for a build that has none.
func version() string {
	info, ok := debug.ReadBuildInfo()
	switch {
	case !ok:
		return "unknown"
	case info.Main.Version == "" || info.Main.Version == "(devel)":
		return "devel"
	}
	return info.Main.Version
}

// printVersion writes what the linker recorded: the module's version, or the
// commit of a build in a work tree.
func printVersion(w io.Writer) error {
	revision, state := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				state = ", with local changes"
			}
		}
	}
	if _, err := fmt.Fprintf(w, "holdfast %s\n", version()); err != nil {
		return err
	}
	if revision != "" {
		if _, err := fmt.Fprintf(w, "commit %s%s\n", revision, state); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "built with %s for %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
