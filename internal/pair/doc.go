// Package pair is the authenticated link between the two nodes of a pair: one
// TCP connection with mutual TLS, over which they exchange beats, and copies of
// what one of them must know when the other is gone.
//
// # Keys
//
// [Init] makes, once for a pair, an ed25519 key for each node, and a certificate
// that only carries it. Each node has its own private key and the other's
// certificate ([LoadKeys]). The link is TLS 1.3, both ends prove themselves, and
// the one thing that counts is whether the other end has the key that is pinned:
// there is no authority, no name, no date (a wrong clock must not stop the
// link), no session that could be resumed.
//
// # The connection
//
// Both nodes listen, and both dial while there is no connection; node 2 waits a
// moment before it does. Whoever has proved nothing has three seconds, 32 kB, and
// one of a few places; the peer's address has places of its own, so that
// strangers cannot keep it out. After TLS both say hello: protocol versions,
// pair, number and name of the node, version of the program, digest of the
// configuration. A connection is the link from the moment that node 1 says so
// (adopt). The newest is always the one, because a node dials only when it has
// lost the one before; what node 1 leaves for a newer one is left with the
// reason, and no callback hears of a link that is down.
//
// Life signs go every quarter of [Options].Silence; when nothing has come for
// that long, the link is down. The kernel is told the same (TCP_USER_TIMEOUT), and
// to take no more than two records that it cannot send yet
// (TCP_NOTSENT_LOWAT): so a beat never waits behind data. The last 64 beats are
// kept in order; one that is older than [Options].BeatAge when its turn comes is
// dropped.
//
// # States
//
//	Down     no connection. It becomes Syncing (or Synced, where there is nothing
//	         to copy) when node 1 adopts one.
//	Syncing  connected, and for some set one of these does not hold: as its
//	         leader, the follower has said that it has everything up to the
//	         latest mark; as its follower, a mark has come on this connection, and
//	         nothing older is left. It becomes Synced when all hold.
//	Synced   connected, and the copy is whole but for what is on its way. It
//	         becomes Syncing when an item finds no room, when a deletion is
//	         forgotten before it was sent, and when somebody leads anew; Down with
//	         the connection.
//
// # Sets
//
// A [Set] has one leader, who puts and deletes items, and a follower, who is told.
// Every frame carries the epoch; the later epoch leads. The leader of an earlier
// one, who was frozen perhaps, is refused, and told so ([SetOptions].OnSuperseded).
//
// The leader holds of each item the latest value, in the order of the last
// changes, numbered; deletions are remembered until they are acknowledged. To
// send is to walk along that order. So nothing is queued, a producer never waits,
// and the memory is that of the items. A follower says which number of which
// generation it has: the walk goes on from there (after the loss of a
// connection), or, where that means nothing (a restart, a new epoch, a deletion
// that is forgotten), begins at the start under a new generation. What the
// follower is told then begins with [ItemBegin] and ends with [ItemEnd]; between
// the two it forgets nothing, so that at every moment it has all that it ever
// acknowledged.
//
// What always holds: a follower that is complete ([Set.Complete]) has every item
// that it acknowledged and that was not deleted since, and none of another epoch.
// The tests break the protocol in six ways, and each time that law fails.
//
// A [Table] is what both may change: two sets in opposite directions, whose items
// carry a stamp and a node's name. For each key the later entry wins, at both
// nodes.
//
// # Inside
//
// frame.go is the wire, replica.go and outbox.go the protocol of one set, merge
// (in table.go) the rule of tables, guard.go who may try: all of them pure. The
// rest is the shell. [Link.Run] has three goroutines (accept, dial, serve), one
// for each handshake, and two for the connection that is the link (read, write).
// Lock order: Link.refreshing, Set.deliver, Table.mu, Set.mu; Link.mu is taken last
// and alone. Callbacks run on the link's goroutines, hold no lock but
// Link.refreshing or Set.deliver, and must not block.
package pair
