package main

import "strings"

// A note is what the schema does not say of a key.
type note struct {
	without string // what holds without the key, where its tag names no default
	reload  string // what a reload does with another value, and for whom
	example string // its value in the example, as YAML; may have several lines
	also    string // one more item of the list that the example is in
	more    string // Markdown
}

// What a reload does.
const (
	forNew       = "Holds for clients that come after the reload. Established connections are not touched."
	forAll       = "Holds at once, for established connections too."
	keysInside   = "See the keys in it."
	notByOne     = "Cannot be changed by a reload: it is refused, and says so. Restart the node."
	forAddresses = "Holds at once; nothing moves by it."
	movesGroup   = "It is another group then: the one before is released. Change the backup first, then `holdfast address release`, then the other node."
	bothFiles    = "Until the other node has the same, its adverts are reported as contradicting."
	checksAnew2  = "The command is run anew with the new value. What the group is stays so until it says otherwise."
	forNotify    = "Holds for the next change of role."
	notifyMore   = "It runs as the node's own user. What it writes is logged, its failure is an event and a problem in `status`, and its end is awaited only by the next command of the same group."
	checksAnew   = "The checks begin anew with the new value. A backend that is up or down stays so until they say otherwise."
)

const (
	seeBounds    = "[Choose the bounds](../../guide/bounds.md) says what a value costs."
	seeDaemon    = "[Run the daemon](../../guide/daemon.md) has the whole story."
	seeAddresses = "[Own an address](../../guide/addresses.md) has the whole story."
	seeMaintain  = "[Drain a backend for maintenance](../../guide/maintenance.md) has the whole story."
	checkTarget  = "The connections of clients still go to the backend's address: only the check goes elsewhere."
	oneCheck     = "Exactly one of `tcp`, `http`, `exchange`, `command` and `none` may be there."
	checkChanged = "The new check takes the place of the one before. A backend that is up or down stays so until it says otherwise."
)

// notes are by path, in the order of the schema.
var notes = map[string]note{
	"node": {
		reload:  "The new name is in everything that is said from then on. Not in a pair, where the other node knows this one by it: there a reload that changes it is refused.",
		example: `lb1`,
	},

	"pair": {
		without: "a single node",
		reload:  keysInside,
		example: `{listen: 10.0.0.11:7420, peer: 10.0.0.12:7420, witness: 10.0.0.1}`,
		more:    seeAddresses,
	},
	"pair.listen": {reload: notByOne, example: `10.0.0.11:7420`, more: "Only the peer gets in: whoever has no key of the pair is turned away, and counted."},
	"pair.peer": {
		reload: notByOne, example: `10.0.0.12:7420`,
		more: "Best over another network than that of the clients: then a break of one of the two changes nothing.",
	},
	"pair.keys": {
		reload: notByOne, example: `/etc/holdfast/pair`,
		more: "`holdfast pair init` makes them for both nodes; nothing in them expires.",
	},
	"pair.witness": {
		reload: forAddresses, example: `10.0.0.1`,
		more: "Without a witness, a node that is cut off from the other one alone (a cable, a switch) goes on owning its addresses, and so does the other one: whoever is reached by a client then depends on the network. " + seeAddresses,
	},

	"addresses": {
		without: "none",
		reload:  "A group is known by its name. A new one begins as backup; one that is gone is released, to the other node if it still has it. Where only `track` and `notify` differ, nothing moves.",
		example: "\n- name: front\n  interface: eth0\n  addresses: [10.0.0.100/24, \"2001:db8::100/64\"]\n  vrrp: {id: 51}",
		more:    seeAddresses,
	},
	"addresses[].name": {
		reload: "Another name is another group: the one before is released.", example: `front`,
		more: "The two nodes find each other's groups by it.",
	},
	"addresses[].interface": {
		reload: movesGroup, example: `eth0`,
		more: "It need not exist yet when the node starts: the group is in `fault` until it does, and has a carrier.",
	},
	"addresses[].addresses": {
		reload: "Only what differs is touched: a new address comes, one that is gone leaves, and the others notice nothing. " + bothFiles, example: `[10.0.0.100/24, 10.0.0.101/24, "2001:db8::100/64"]`,
		more: "Nobody else may set them: no network manager, no script. The node adds them with a lifetime of two seconds, and renews it, so that they leave by themselves from a node that is frozen.",
	},
	"addresses[].vrrp": {
		without: "no election: this node owns the group whenever it is well",
		reload:  keysInside,
		example: `{id: 51, priority: 200, interval: 100ms}`,
		more:    "The other node may also be a router that speaks VRRP version 3, as keepalived with `vrrp_version 3`. " + seeAddresses,
	},
	"addresses[].vrrp.id":       {reload: movesGroup, example: `51`},
	"addresses[].vrrp.priority": {reload: "Holds at once. Nothing moves, unless a backup with `preempt` has the larger priority now: it takes the group over, planned.", example: `100`},
	"addresses[].vrrp.interval": {
		reload: forAddresses + " " + bothFiles, example: `10ms`,
		more: "A takeover takes three intervals and up to one more: 40 ms at `10ms`, 400 ms at `100ms`. The node that owns the group sends one advert an interval, of some 60 bytes for each family.",
	},
	"addresses[].vrrp.preempt": {
		reload: "Holds at once: a backup with the larger priority takes the group over, planned, after `preempt_delay`.", example: `true`,
		more: "Without it the group stays where it is until it has to move: one move less.",
	},
	"addresses[].vrrp.preempt_delay": {reload: forAddresses, example: `1m`},
	"addresses[].vrrp.peers": {
		reload: forAddresses, example: `[10.0.0.12]`,
		more: "Where the network carries no multicast, as in most clouds.",
	},
	"addresses[].track": {
		without: "nothing but the interface",
		reload:  keysInside,
		example: `{interfaces: [eth1], command: [/usr/local/bin/check-db], interval: 1s, fall: 3, rise: 2}`,
		more:    seeAddresses,
	},
	"addresses[].track.interfaces": {reload: "Holds at once: a node on which one of them is down gives the group up.", example: `[eth1]`},
	"addresses[].track.command": {
		reload: "The new command takes the place of the one before; what the group is stays so until it says otherwise.", example: `[/usr/bin/pg_isready, -q]`,
		more: "It must judge this node alone: a command that asks the other node makes both fall together.",
	},
	"addresses[].track.interval": {reload: checksAnew2, example: `500ms`},
	"addresses[].track.fall":     {reload: checksAnew2, example: `2`},
	"addresses[].track.rise":     {reload: checksAnew2, example: `1`},
	"addresses[].notify": {
		without: "nobody",
		reload:  keysInside,
		example: `{active: [/etc/holdfast/notify, promote], backup: [/etc/holdfast/notify, follow]}`,
		more:    seeAddresses,
	},
	"addresses[].notify.active": {reload: forNotify, example: `[/etc/holdfast/postgresql-active]`, more: notifyMore},
	"addresses[].notify.backup": {reload: forNotify, example: `[/etc/holdfast/postgresql-backup]`, more: notifyMore},
	"addresses[].notify.fault":  {reload: forNotify, example: `[/usr/bin/logger, -t, holdfast, fault]`, more: notifyMore},

	"services": {
		reload: "A service is known by its name. A new one begins to listen; of one that is there, only what differs changes; one that is gone stops listening, " +
			"and its connections end by themselves within its `drain`.",
		example: "\n- name: web\n  listen: \":8080\"\n  backends:\n    - address: 10.0.0.21:80\n    - address: 10.0.0.22:80",
		more:    "[Put it in front of PostgreSQL](../../guide/postgresql.md) builds one step by step.",
	},
	"services[].name": {
		reload:  "Another name is another service. The one before drains; its addresses pass to the new one with their queues, and no client is refused in between.",
		example: `web`,
	},
	"services[].listen": {
		reload: "Every new address is bound before anything changes, so an address that is in use changes nothing. An address that stays keeps its socket and its queue. " +
			"From one that is gone, those who wait in its queue are still accepted; connections that came by it stay. From one address to every address of the same port, or back, takes two reloads: the kernel lets neither follow the other at once.",
		example: `["10.0.0.100:6379", "[2001:db8::100]:6379", "unix:/run/holdfast/redis.sock"]`,
		more: "`:PORT` is a socket for IPv4 and one for IPv6, where the machine has both. A port below 1024 needs `CAP_NET_BIND_SERVICE`, which the unit gives. " +
			"The file of a unix socket has the mode that the node's umask leaves it, and a client needs the right to write to it.",
	},
	"services[].engine": {
		reload:  forNew,
		example: `relay`,
		more:    "`packet` is not supported by this version, and refused.",
	},
	"services[].balance": {
		reload:  forNew,
		example: `source-hash`,
		more: "| value | a new client goes to | good for |\n|---|---|---|\n" +
			"| `least-connections` | the backend with the fewest connections for its weight | long connections, backends of different speed |\n" +
			"| `round-robin` | each backend in turn, by weight | short connections of equal cost |\n" +
			"| `source-hash` | the same backend for one address | caches that warm up by client |\n",
	},
	"services[].backends": {
		reload: "A backend is known by its name. A new one gets clients once its check says that it is up; of one that is there, only what differs changes; " +
			"one that is gone gets no new clients, and its connections end by themselves within `drain`.",
		example: "\n- {name: r1, address: 10.0.0.21:6379}\n- {name: r2, address: 10.0.0.22:6379, backup: true}",
		more:    seeMaintain,
	},
	"services[].backends[].name": {
		without: "its address",
		reload:  "Another name is another backend, also at the same address: the one before drains.",
		example: `r1`,
		more:    "Give names: commands, events and metrics use them, and they stay when an address changes.",
	},
	"services[].backends[].address": {
		reload:  "New clients go to the new address. Connections to the one before stay as they are.",
		example: `db1.example.net:5432`,
		more: "A host name that cannot be found refuses the file. The node does not look it up again by itself: `holdfast reload` does, " +
			"and takes another answer as a change of the file. Where the backend is connected to from is said in " +
			"[Own an address](../../guide/addresses.md#what-backends-see).",
	},
	"services[].backends[].weight": {
		reload:  "Holds for clients that come after the reload. A weight that was set by hand stays until this key says something else than when that was done.",
		example: `50`,
		more:    "A client goes to a backend with weight 200 twice as often as to one with 100. " + seeMaintain,
	},
	"services[].backends[].max_connections": {
		reload:  "Holds for clients that come after the reload: a lower bound cuts nobody off.",
		example: `200`,
		more:    "Set it where the backend itself has a limit (`max_connections` of PostgreSQL, `maxclients` of Redis), below that limit: the next backend is chosen in time, in place of an error from this one.",
	},
	"services[].backends[].backup": {
		reload:  forNew,
		example: `true`,
		also:    `address: 10.0.0.22:80`,
		more:    "Connections that a backup has got stay with it when the others are back.",
	},

	"services[].health": {
		without: "`tcp: {}`, with the bounds below",
		reload:  keysInside,
		example: "\nhttp: {path: /healthz}\ninterval: 500ms",
		more:    seeBounds,
	},
	"services[].health.tcp": {
		without: "it is what holds where no other kind of check is named",
		reload:  checkChanged, example: `{}`, more: oneCheck,
	},
	"services[].health.http": {
		without: "no such check",
		reload:  checkChanged, example: `{path: /healthz, status: 200-299, host: app.example.net}`, more: oneCheck,
	},
	"services[].health.exchange": {
		without: "no such check",
		reload:  checkChanged, example: `{send: "PING\r\n", expect: "+PONG"}`, more: oneCheck,
	},
	"services[].health.command": {
		without: "no such check",
		reload:  checkChanged, example: `{argv: [/usr/bin/pg_isready, -q, -h, 10.0.0.21]}`,
		more: oneCheck + " One program is started for each check of each backend: mind the interval.",
	},
	"services[].health.none": {
		without: "backends are checked",
		reload:  checkChanged, example: `{}`,
		more: oneCheck + " A refused connect still goes to the next backend, for that one client.",
	},
	"services[].health.interval": {reload: checksAnew, example: `100ms`, more: seeBounds},
	"services[].health.timeout":  {reload: checksAnew, example: `500ms`, more: seeBounds},
	"services[].health.fall":     {reload: checksAnew, example: `2`, more: seeBounds},
	"services[].health.rise":     {reload: checksAnew, example: `1`, more: seeBounds},

	"services[].health.http.path": {reload: checksAnew, example: `/healthz?deep=1`},
	"services[].health.http.status": {
		reload: checksAnew, example: `"200-299,404"`,
		more: "A redirect is an answer like any other: it is not followed.",
	},
	"services[].health.http.host":       {reload: checksAnew, example: `app.example.net`},
	"services[].health.exchange.send":   {reload: checksAnew, example: `"PING\r\n"`},
	"services[].health.exchange.expect": {reload: checksAnew, example: `"+PONG"`},
	"services[].health.command.argv": {
		reload: checksAnew, example: `[/usr/local/bin/check-db, --quick]`,
		more: "The program is looked for in the node's own `PATH`, which is all that it gets of the environment besides `HOLDFAST_BACKEND` and `HOLDFAST_ADDRESS`. When `timeout` is over it is killed, with everything that it has started.",
	},
	"services[].health.command.user": {
		reload: checksAnew, example: `nobody`,
		more: "Under the systemd unit this needs two capabilities more: " + seeDaemon,
	},

	"services[].on_backend_lost": {
		reload:  "Holds at once, for established connections too; `reset` also for those of a backend that is down already.",
		example: `drain`,
		more:    "`hold` and `rehome` are not supported by this version, and refused. [Choose the bounds](../../guide/bounds.md) says when `drain` is right.",
	},
	"services[].drain": {
		without: "no bounds: what is drained ends by itself; a node that stops, or gives an address away, tells everybody at once",
		reload:  keysInside,
		example: `{timeout: 1h, idle: 1m}`,
		more: "An address that is given away waits for the connections on it that have such bounds, for an hour at most; new ones go to the other node " +
			"meanwhile. When it leaves, those that are left are told, also those without bounds. " + seeMaintain,
	},
	"services[].drain.timeout": {reload: "Holds at once, for what is already draining too; it counts from when draining began.", example: `1h`, more: seeMaintain},
	"services[].drain.idle": {
		reload: "Holds at once, for what is already draining too.", example: `1m`,
		more: "It must be shorter than `timeout`, where both are there.",
	},
	"services[].connect_timeout":   {reload: "Holds for clients that come after the reload, and for connects that are under way.", example: `1s`, more: seeBounds},
	"services[].idle_timeout":      {reload: forAll, example: `1h`, more: "Rarely right: `dead_peer_timeout` finds peers that are gone, and leaves those alone that say nothing. " + seeBounds},
	"services[].dead_peer_timeout": {reload: forAll, example: `30s`, more: "Below the patience of every middlebox on the path, its probes also keep a stateful firewall from forgetting the connection. " + seeBounds},
	"services[].allow": {
		without: "every client is allowed",
		reload:  "Holds for clients that come after the reload. Who is connected stays connected: `holdfast connection reset --client NETWORK` ends those.",
		example: `[10.0.0.0/8, "2001:db8::/32", 192.0.2.7]`,
	},

	"admin": {
		without: "the values of the keys in it",
		reload:  keysInside,
		example: `{socket: /run/holdfast/lb1.sock, mode: "0660", group: adm}`,
	},
	"admin.socket": {
		reload: notByOne, example: `/run/holdfast/lb1.sock`,
		more: "Two nodes on one machine need two.",
	},
	"admin.mode": {
		reload: "Holds for whoever opens the socket after the reload.", example: `"0600"`,
		more: "The quotes matter: without them YAML reads another number. Reading is `status`, `services`, `backends`, `connections`, `events` and `top`.",
	},
	"admin.group": {
		reload: "Holds for the next request.", example: `adm`,
		more: "A node that does not run as root can give the socket only to a group of its own user: `SupplementaryGroups=` in the unit.",
	},
	"directories": {
		without: "the values of the keys in it",
		reload:  keysInside,
		example: `{runtime: /run/holdfast-lb2}`,
	},
	"directories.runtime": {reload: notByOne, example: `/run/holdfast-lb2`, more: "With it, `admin.socket` usually moves too."},
	"directories.bpf":     {reload: notByOne, example: `/sys/fs/bpf/holdfast-lb2`},
	"metrics": {
		without: "metrics are on the admin socket only",
		reload:  keysInside,
		example: `{listen: 127.0.0.1:9420}`,
		more:    "[The metrics](../metrics.md), and [what to alert on](../../guide/alerts.md).",
	},
	"metrics.listen": {
		reload:  "The new address is bound before the one before is given up; one that cannot be bound refuses the reload.",
		example: `127.0.0.1:9420`,
		more:    "Without it: `curl --unix-socket /run/holdfast/holdfast.sock http://holdfast/metrics`.",
	},
	"log": {
		without: "the values of the keys in it",
		reload:  keysInside,
		example: `{level: warn, format: json}`,
	},
	"log.level": {
		reload: "Holds for the next line.", example: `debug`,
		more: "`debug` writes a line for every connection: for minutes, not for a night. What happened to a connection is in the events, at every level: [Read a connection's story from events](../../guide/events.md).",
	},
	"log.format": {reload: "Holds for the next line.", example: `json`},
}

// target are the keys of where and how a check connects: the same for three
// kinds of checks.
var target = map[string]note{
	"port":            {reload: checksAnew, example: `8008`, more: checkTarget},
	"address":         {reload: checksAnew, example: `10.0.0.99`, more: checkTarget + " Every backend of the service is then judged by this one address: use it for a monitor that knows them all, with `exchange` or `http`."},
	"tls":             {without: "no TLS", reload: checksAnew, example: `{server_name: db.example.net}`},
	"tls.server_name": {reload: checksAnew, example: `db.example.net`, more: "A host that is an IP address needs a certificate for that address, or this."},
	"tls.insecure":    {reload: checksAnew, example: `true`, more: "The check then says only that something speaks TLS there."},
}

// noteOf finds the note of a key.
func noteOf(path string) (note, bool) {
	if n, ok := notes[path]; ok {
		return n, true
	}
	for _, kind := range []string{"tcp", "http", "exchange"} {
		if rest, ok := strings.CutPrefix(path, "services[].health."+kind+"."); ok {
			n, ok := target[rest]
			return n, ok
		}
	}
	return note{}, false
}
