//go:build linux

package own_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/internal/cli"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/internal/scene/own"
	"github.com/holdfast-net/holdfast/lab"
)

func TestMain(m *testing.M) {
	// An elector is started without the environment of its node.
	if os.Getenv("HOLDFAST_TEST_AS_PROGRAM") == "1" || len(os.Args) > 1 && os.Args[1] == "elector" {
		os.Exit(cli.Main(os.Args[1:], cli.Streams{Out: os.Stdout, Err: os.Stderr}))
	}
	lab.Main()
	goleak.VerifyTestMain(m)
}

// asProgram makes the test binary be holdfast; commands of a -race run do not
// end with a second of rest.
func asProgram(t *testing.T) *scene.Program {
	t.Helper()
	if err := lab.Supported(lab.Topology{}); err != nil {
		t.Skip(err)
	}
	program, err := scene.ThisProgram("HOLDFAST_TEST_AS_PROGRAM=1", "GORACE=atexit_sleep_ms=0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := program.Close(); err != nil {
			t.Error(err)
		}
	})
	return program
}

// TestScenes plays every variant of every scene once for each family, in its
// short form; those that mostly wait, side by side. What a machine under load
// makes slow is recorded, and no failure.
func TestScenes(t *testing.T) {
	program := asProgram(t)
	for _, s := range own.All() {
		for _, variant := range s.Variants {
			if variant.Long {
				continue
			}
			for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
				t.Run(fmt.Sprintf("%s/%s/%s", s.Name, variant, family), func(t *testing.T) {
					if s.Patient {
						t.Parallel()
					}
					v, err := scene.Play(t.Context(), s, scene.Env{
						Family: family, Variant: variant, Seed: 1, Program: program, Relaxed: true,
						OnProgress: func(elapsed time.Duration, what string) { t.Logf("%6.2f s  %s", elapsed.Seconds(), what) },
					})
					if err != nil {
						t.Fatal(err)
					}
					if err := v.WriteText(t.Output()); err != nil {
						t.Error(err)
					}
					for _, wrong := range v.Wrong(false) {
						t.Error(wrong)
					}
				})
			}
		}
	}
}
