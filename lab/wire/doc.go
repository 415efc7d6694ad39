// Package wire carries Ethernet frames between two TAP devices in user space,
// and spoils them on request: delay, jitter, loss, duplication, reordering,
// limited bandwidth and partition, each for each direction, changeable while
// frames are under way.
//
// A [Wire] joins two [Device]s, which are open TAP devices; those of a lab's
// link with LinkSpec.Taps come from its Taps method:
//
//	host, sw, err := l.Host("client1").Links()[0].Taps()
//	w, err := wire.New(host, sw, wire.Options{Seed: 1, FromA: wire.Settings{Delay: 20 * time.Millisecond}})
//	go w.Run(ctx)
//	w.Set(wire.FromB, wire.Settings{Loss: 0.05})
//
// What happens to a frame depends on the seed, the direction, how many frames of
// this direction came before it, and the settings, and on nothing else: two
// runs that send the same frames lose the same ones. Only the times at which
// frames come differ, and with them what a limited bandwidth does.
//
// The kernel's netem does the same where it is compiled in. This one needs no
// kernel module, is the same on every machine, and can be asked what it did.
package wire
