// Package balance chooses which backend serves a new connection.
//
// A [Pool] holds the backends of one service with their weights, what health
// checks say about them, and how many connections each carries now. Ask it with
// [Pool.Pick], give back with [Pool.Release]:
//
//	pool, err := balance.New(balance.LeastConnections,
//		balance.Backend{Name: "a", Weight: 100},
//		balance.Backend{Name: "b", Weight: 100},
//		balance.Backend{Name: "spare", Weight: 100, Backup: true})
//	name, err := pool.Pick(client)          // counts the connection
//	if connect(name) != nil {
//		pool.Release(name)
//		name, err = pool.Pick(client, name) // redispatch: anybody but name
//	}
//	defer pool.Release(name)
//
// # Who can be picked
//
// A backend takes new connections while it is [Up], its weight is above zero and
// it is below its MaxConnections. Weight zero is [Drain]: what the backend has
// stays and is counted, nothing new comes. Backup backends are picked only when
// no other one is up with a weight above zero. A backend in tried counts as down
// for that one pick, so a client whose connects were refused everywhere else
// still reaches the backups. A backend at its limit counts as up: its clients
// wait ([ErrFull]) and do not spill over to the backups.
//
// # Policies
//
//   - [LeastConnections] takes the backend with the smallest (active+1)/weight,
//     compared exactly, in integers. Between equals the one picked longest ago
//     wins, so an idle pool goes round instead of using its first backend only.
//   - [RoundRobin] is smooth weighted round-robin: weights 5, 1, 1 give
//     a a b a c a a rather than a a a a a b c.
//   - [SourceHash] sends a client address to the same backend every time, by
//     Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software
//     Network Load Balancer", NSDI 2016, section 3.4). The choice depends only
//     on the names and weights of the backends and on the address: not on the
//     order in which backends were given, the process, or the machine, so two
//     nodes agree. When a backend goes down only its own clients move, to the
//     next entry of the table, and they return when it is up again; adding,
//     removing or weighing one moves few others.
//
// The package is pure: no goroutine, no clock, no random numbers. A Pool is not
// safe for concurrent use; the caller holds its lock.
package balance
