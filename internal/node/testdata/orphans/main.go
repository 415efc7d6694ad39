// Orphans is the program of a check that leaves processes behind: one in its own
// process group, one in a session of its own.
package main

import (
	"os"
	"os/exec"
	"syscall"
)

func main() {
	if len(os.Args) > 1 {
		return
	}
	for _, session := range []bool{false, true} {
		cmd := exec.Command("/proc/self/exe", "child")
		if _, err := os.Stat(cmd.Path); err != nil {
			cmd.Path = os.Args[0]
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
		if err := cmd.Start(); err != nil {
			os.Exit(1)
		}
	}
}
