package pair

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv makes the test binary a node: see the tests in the laboratory.
const childEnv = "HOLDFAST_TEST_PAIR"

func TestMain(m *testing.M) {
	if args := os.Getenv(childEnv); args != "" {
		child(args)
		return
	}
	goleak.VerifyTestMain(m)
}
