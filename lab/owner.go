//go:build linux

package lab

import (
	"fmt"
	"os"
)

const (
	dirPrefix     = "holdfast-lab-"
	ownerVariable = "HOLDFAST_LAB_OWNER"
)

// owner names this process.
func owner() string { return fmt.Sprint(os.Getpid()) }
