//go:build linux

package notice

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	goleak.VerifyTestMain(m)
}
