package main

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/lab"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	lab.Main()
	goleak.VerifyTestMain(m)
}
