//go:build linux

package operate_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/internal/cli"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/internal/scene/operate"
	"github.com/holdfast-net/holdfast/lab"
)

// asProgram makes the test binary be holdfast.
const asProgram = "HOLDFAST_TEST_AS_PROGRAM=1"

func TestMain(m *testing.M) {
	if os.Getenv("HOLDFAST_TEST_AS_PROGRAM") == "1" {
		os.Exit(cli.Main(os.Args[1:], cli.Streams{Out: os.Stdout, Err: os.Stderr}))
	}
	lab.Main()
	goleak.VerifyTestMain(m)
}

// TestScenes plays every variant of every scene once for each family. What a
// machine under load makes slow is recorded, and no failure.
func TestScenes(t *testing.T) {
	if err := lab.Supported(lab.Topology{}); err != nil {
		t.Skip(err)
	}
	program, err := scene.ThisProgram(asProgram, "GORACE=atexit_sleep_ms=0") // or each command of a -race run ends with a second of rest
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := program.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, s := range operate.All() {
		for _, variant := range s.Variants {
			for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
				t.Run(fmt.Sprintf("%s/%s/%s", s.Name, variant, family), func(t *testing.T) {
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
