// Package connected knows who is connected to the addresses of a node,
// whatever program serves them: so that a peer that takes them over can tell
// every one of them that their connection is gone.
//
// A [Roster] is fed by the kernel (internal/socktrace where eBPF may be used,
// else sockdiag ten times a second) and by the relay. It tells each change as a
// [Change], which is an item of a pair.Set; the other node holds a [Copy]:
//
//	OnChange: func(list []connected.Change) {
//		for _, c := range list {
//			key := connected.AppendKey(nil, c.Record.Tuple)
//			if c.Gone {
//				set.Delete(key)
//			} else {
//				set.Put(key, connected.AppendValue(nil, c.Record))
//			}
//		}
//	}
//
// and whenever this node begins to lead: set.Lead(epoch, roster.Items()).
//
// A connection is known from the moment in which its handshake is complete for
// this node's kernel, also while no program has accepted it, until nobody can
// wait for this end any more: half-closed ones are connected, TIME_WAIT is not.
// Who is waiting for a SYN-ACK, and whom the kernel has not made a socket for as a
// listener's queue is full, is unknown, and so unprotected.
//
// The judgement (core) is pure; the Roster around it has the clock, the
// goroutines and the kernel.
package connected
