// Package health finds out whether backends are alive, and says so when that
// changes. It reports; it never decides where connections go.
//
// A [Checker] watches one backend:
//
//	c, err := health.New(health.Options{
//		Name:    "redis-1",
//		Address: "10.0.0.21:6379",
//		Check: health.Check{
//			Kind:     health.Exchange,
//			Exchange: health.ExchangeCheck{Send: "PING\r\n", Expect: "+PONG"},
//		},
//		OnChange: func(change health.Change) { fmt.Println(change.State, change.Cause) },
//	})
//	go c.Run(ctx)
//	defer c.Close()
//
// There are five kinds: [TCP] connects, [HTTP] asks for a path and looks at the
// status, [Exchange] sends and expects bytes, [Command] runs a program, [None]
// does not check. The first three can use TLS, and another address or port than
// the backend's. Connections are ended with a RST, so that neither side keeps a
// TIME_WAIT for each check.
//
// # When a state changes
//
// After Fall failures in a row a backend is [Down], after Rise successes in a row
// [Up]. Before the first result it is [Unknown], which counts as up, because a
// balancer that starts should serve; that first result then decides at once.
// [Checker.Report] adds what others see, such as a connect that was refused: it is
// one more failure in the row.
//
// # How fast
//
// Checks start at a fixed rate, measured from start to start; jitter only ever
// shortens the gap, by up to a tenth. A check that takes longer than the interval
// is followed by the next at once; two never overlap. So a backend that falls
// silent is reported down at the latest
//
//	Interval + (Fall-1) x max(Interval, Timeout) + Timeout
//
// after it did, which is Interval x Fall + Timeout as long as the timeout is no
// longer than the interval. The first check comes at once. The second comes
// after a random part of the interval, so that checkers that were started together
// spread over it; a [Limiter] bounds how many check at one moment.
//
// Linux repeats a lost SYN after 1 s (RFC 6298, section 2). With a Timeout below
// that, one lost SYN is one failed check, and what Fall is for: with a Timeout of
// 100 ms keep it at 2 or more on networks that lose packets.
//
// # When the checker itself is late
//
// A process that was stopped, or that got no CPU, finds its timeouts run out
// whatever the backend did. A Checker measures how late its own timers fire: before
// a check, during it, and at its end. When one was late by more than a quarter of
// the timeout, a failure by timeout is not counted; the check is repeated at once.
// Nor is a failure to check for want of local means (descriptors, memory, ports).
// [Status] counts both as Distrusted. After five in a row the next one counts, as
// otherwise a machine that is short of CPU for good would hide a dead backend.
package health
