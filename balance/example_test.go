package balance_test

import (
	"fmt"
	"net/netip"

	"github.com/holdfast-net/holdfast/balance"
)

func Example() {
	pool, err := balance.New(balance.LeastConnections,
		balance.Backend{Name: "big", Weight: 200},
		balance.Backend{Name: "small", Weight: 100},
		balance.Backend{Name: "spare", Weight: 100, Backup: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := netip.MustParseAddr("192.0.2.7")

	for range 3 {
		name, _ := pool.Pick(client)
		fmt.Println("connection to", name)
	}

	// The connect to big was refused: give it back and pick another.
	name, _ := pool.Pick(client)
	pool.Release(name)
	other, _ := pool.Pick(client, name)
	fmt.Println(name, "refused, redispatched to", other)

	// Health checks found both dead.
	for _, dead := range []string{"big", "small"} {
		if err := pool.SetState(dead, balance.Down); err != nil {
			fmt.Println(err)
		}
	}
	name, _ = pool.Pick(client)
	fmt.Println("last resort", name)

	for _, s := range pool.Statuses() {
		fmt.Println(s.Name, s.State, s.Active)
	}
	// Output:
	// connection to big
	// connection to small
	// connection to big
	// big refused, redispatched to small
	// last resort spare
	// big down 2
	// small down 2
	// spare up 1
}
