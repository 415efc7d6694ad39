package admin_test

import (
	"fmt"

	"github.com/holdfast-net/holdfast/admin"
)

// A mistake in a configuration file, as an operator reads it.
func ExampleConfigError() {
	fmt.Println(admin.ConfigError{
		File: "holdfast.yaml", Line: 3, Column: 13, Path: "services[0].balance",
		What:    `"roundrobin" is no policy; did you mean round-robin?`,
		Excerpt: "  3 |   balance: roundrobin\n    |            ^",
	})
	// Output:
	// holdfast.yaml:3:13: services[0].balance: "roundrobin" is no policy; did you mean round-robin?
	//   3 |   balance: roundrobin
	//     |            ^
}
