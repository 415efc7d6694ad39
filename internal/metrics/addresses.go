package metrics

import (
	"maps"
	"slices"

	"github.com/holdfast-net/holdfast/admin"
)

var (
	roles      = []string{admin.RoleActive, admin.RoleBackup, admin.RoleFault}
	pairStates = []string{"synced", "syncing", "down"}

	// takeovers are the causes by which a node becomes the owner: shown from the
	// start, as endings are.
	takeovers = []string{
		admin.CauseAlone, admin.CauseSilence, admin.CauseFarewell, admin.CauseHandover, admin.CausePreempt, admin.CauseWell, admin.CausePredecessor,
	}
)

// eachGroup reports for every group of addresses.
func eachGroup(read func(g *admin.AddressGroup, set setFunc)) func(*node, setFunc) {
	return func(n *node, set setFunc) {
		for i := range n.Addresses {
			g := &n.Addresses[i]
			read(g, func(value float64, labels ...string) {
				set(value, append([]string{g.Name}, labels...)...)
			})
		}
	}
}

// elected reports for every group that has an election.
func elected(read func(g *admin.AddressGroup, set setFunc)) func(*node, setFunc) {
	return eachGroup(func(g *admin.AddressGroup, set setFunc) {
		if g.VRRPID > 0 {
			read(g, set)
		}
	})
}

func addressMetrics() Group {
	labels := func(more ...string) []string { return append([]string{"group"}, more...) }
	return Group{"Addresses", []Metric{
		{
			Name: "holdfast_address_info", Labels: labels("address", "interface"),
			Help:  "Always 1; the labels say which addresses a group has, and on which interface.",
			About: "Join it to find the group of an address.",
			read: eachGroup(func(g *admin.AddressGroup, set setFunc) {
				for _, a := range g.Addresses {
					set(1, a, g.Interface)
				}
			}),
		}, {
			Name: "holdfast_address_role", Labels: labels("role"),
			Help:  "1 for the role that this node has for the group: active, backup or fault; 0 for the others.",
			About: "Over both nodes, `sum by (group) (holdfast_address_role{role=\"active\"})` is 1: at 0 nobody owns the group, at 2 both do.",
			read:  eachGroup(func(g *admin.AddressGroup, set setFunc) { oneOf(g.Role, roles, set) }),
		}, {
			Name: "holdfast_address_role_timestamp_seconds", Labels: labels(),
			Help:  "Since when this node has the role, in seconds since 1970.",
			About: "`changes(...)` of it counts how often the group moves.",
			read:  eachGroup(func(g *admin.AddressGroup, set setFunc) { seconds(g.Since, set) }),
		}, {
			Name: "holdfast_address_epoch", Labels: labels(),
			Help:  "Counts the owners of the group over both nodes.",
			About: "The same on both nodes, but for the moment of a takeover.",
			read:  eachGroup(func(g *admin.AddressGroup, set setFunc) { set(float64(g.Epoch)) }),
		}, {
			Name: "holdfast_address_lease_seconds", Labels: labels(),
			Help:  "What was left of this node's lease for the group; 0 where it has none.",
			About: "It falls and is extended with each advert. Its least over hours says how near the node came to falling silent.",
			read:  eachGroup(func(g *admin.AddressGroup, set setFunc) { set(g.Lease.Duration().Seconds()) }),
		}, {
			Name: "holdfast_address_takeovers_total", Counter: true, Labels: labels("cause"),
			Help:  "How often this node became the owner of the group, by cause.",
			About: "`handover` and `preempt` are planned. `silence` is a takeover from a node that said nothing more.",
			read: eachGroup(func(g *admin.AddressGroup, set setFunc) {
				causes := slices.Clone(takeovers)
				for _, c := range slices.Sorted(maps.Keys(g.Takeovers)) {
					if !slices.Contains(causes, c) {
						causes = append(causes, c)
					}
				}
				for _, c := range causes {
					set(float64(g.Takeovers[c]), c)
				}
			}),
		}, {
			Name: "holdfast_address_present", Labels: labels(),
			Help:  "How many addresses of the group are on the interface.",
			About: "On the owner all of them, elsewhere 0.",
			read:  eachGroup(func(g *admin.AddressGroup, set setFunc) { set(float64(len(g.Present))) }),
		}, {
			Name: "holdfast_address_conflicts_total", Counter: true, Labels: labels(),
			Help:  "How often another host answered for an address that is this node's.",
			About: "A second owner that is not of the pair. `holdfast events` has its MAC address.",
			read:  eachGroup(func(g *admin.AddressGroup, set setFunc) { set(float64(g.Conflicts)) }),
		}, {
			Name: "holdfast_address_restored_total", Counter: true, Labels: labels(),
			Help:  "Addresses that were put back because somebody else had taken them away.",
			About: "A network manager that thinks the interface is its own.",
			read:  eachGroup(func(g *admin.AddressGroup, set setFunc) { set(float64(g.Restored)) }),
		}, {
			Name: "holdfast_address_gate", Labels: labels(),
			Help:  "1 while a program in the kernel holds the lease; 0 where only the lifetimes of the addresses do.",
			About: "At 0 a frozen owner is waited for until its addresses have expired.",
			read:  eachGroup(func(g *admin.AddressGroup, set setFunc) { set(boolean(g.Gate.InForce)) }),
		}, {
			Name: "holdfast_address_gate_dropped_total", Counter: true, Labels: labels(),
			Help:  "Frames from, to or about the addresses that were stopped because no lease ran.",
			About: "What a node without the right to speak would have said.",
			read:  eachGroup(func(g *admin.AddressGroup, set setFunc) { set(float64(g.Gate.Dropped)) }),
		},
	}}
}

func advertMetrics() Group {
	labels := func(more ...string) []string { return append([]string{"group"}, more...) }
	return Group{"Adverts", []Metric{
		{
			Name: "holdfast_adverts_sent_total", Counter: true, Labels: labels(),
			Help: "Adverts that this node has sent for the group.",
			read: elected(func(g *admin.AddressGroup, set setFunc) { set(float64(g.Adverts.Sent)) }),
		}, {
			Name: "holdfast_adverts_received_total", Counter: true, Labels: labels(),
			Help:  "Adverts that this node has received from routers of the group.",
			About: "On the backup, `rate(...)` of it is one divided by the interval.",
			read:  elected(func(g *admin.AddressGroup, set setFunc) { set(float64(g.Adverts.Received)) }),
		}, {
			Name: "holdfast_adverts_late_total", Counter: true, Labels: labels(),
			Help:  "Own adverts that left later than half an interval after their time.",
			About: "A machine that is short of processor time where it must not be; three in a row would be a takeover.",
			read:  elected(func(g *admin.AddressGroup, set setFunc) { set(float64(g.Adverts.Late)) }),
		}, {
			Name: "holdfast_adverts_failed_total", Counter: true, Labels: labels(),
			Help: "Own adverts that the kernel refused to send.",
			read: elected(func(g *admin.AddressGroup, set setFunc) { set(float64(g.Adverts.Failed)) }),
		}, {
			Name: "holdfast_adverts_refused_total", Counter: true, Labels: labels("reason"),
			Help:  "Adverts that were received and not believed: invalid (malformed, or from beyond a router), alien (other addresses, or another interval) or forged (from a host that is not the peer).",
			About: "`alien` during a change of the configuration is one node that has it before the other.",
			read: elected(func(g *admin.AddressGroup, set setFunc) {
				set(float64(g.Adverts.Invalid), "invalid")
				set(float64(g.Adverts.Alien), "alien")
				set(float64(g.Adverts.Forged), "forged")
			}),
		}, {
			Name: "holdfast_adverts_max_gap_seconds", Labels: labels("direction"),
			Help:  "The longest gap between two adverts since the group began: sent by this node, or received from the owner.",
			About: "More than three intervals received, and there was a takeover, or nearly one.",
			read: elected(func(g *admin.AddressGroup, set setFunc) {
				set(g.Adverts.MaxGap.Duration().Seconds(), "sent")
				set(g.Adverts.MaxHeard.Duration().Seconds(), "received")
			}),
		}, {
			Name: "holdfast_address_asked_total", Counter: true, Labels: labels("answered"),
			Help:  "How often the owner's kernel was asked, as its adverts were late, whether it still answers for the address; and how often it did.",
			About: "Answers without adverts: a machine whose programs stand still, or a network that loses multicast.",
			read: elected(func(g *admin.AddressGroup, set setFunc) {
				set(float64(g.Answered), "yes")
				set(float64(g.Asked-min(g.Answered, g.Asked)), "no")
			}),
		}, {
			Name: "holdfast_witness_up", Labels: labels("address"),
			Help:  "1 while the witness answers; 0 while it does not.",
			About: "At 0 this node takes nothing over, and gives up what it owns if it loses the other node too. Absent without a witness, and where the node does not ask it, as it may not take over: in fault, and after a release.",
			read: eachGroup(func(g *admin.AddressGroup, set setFunc) {
				if g.Witness != nil && !g.Witness.NotAsked {
					set(boolean(g.Witness.Answers), g.Witness.Address)
				}
			}),
		},
	}}
}

// linked reports only for a node of a pair.
func linked(read func(p *admin.Pair, set setFunc)) func(*node, setFunc) {
	return func(n *node, set setFunc) {
		if n.Pair != nil {
			read(n.Pair, set)
		}
	}
}

func pairMetrics() Group {
	return Group{"The pair", []Metric{
		{
			Name: "holdfast_pair_state", Labels: []string{"state"},
			Help:  "1 for the state of the link to the other node: synced, syncing or down; 0 for the others.",
			About: "Absent for a single node. While it is down, a takeover has the adverts and the witness only.",
			read:  linked(func(p *admin.Pair, set setFunc) { oneOf(p.State, pairStates, set) }),
		}, {
			Name: "holdfast_pair_state_timestamp_seconds",
			Help: "Since when the link has that state, in seconds since 1970.",
			read: linked(func(p *admin.Pair, set setFunc) { seconds(p.Since, set) }),
		}, {
			Name:  "holdfast_pair_rtt_seconds",
			Help:  "The latest round trip on the link.",
			About: "Absent while none was measured.",
			read: linked(func(p *admin.Pair, set setFunc) {
				if p.RTT > 0 {
					set(p.RTT.Duration().Seconds())
				}
			}),
		}, {
			Name: "holdfast_pair_connects_total", Counter: true,
			Help: "How often the link came up.",
			read: linked(func(p *admin.Pair, set setFunc) { set(float64(p.Connects)) }),
		}, {
			Name:  "holdfast_pair_unprotected",
			Help:  "Items that the other node has not acknowledged: what it would not know after a takeover.",
			About: "Above 0 for moments while something changes; for long, the link is too slow or down.",
			read:  linked(func(p *admin.Pair, set setFunc) { set(float64(p.Unprotected)) }),
		}, {
			Name: "holdfast_pair_strangers_total", Counter: true, Labels: []string{"reason"},
			Help:  "Connections to the port of the link that were turned away, by reason.",
			About: "A scanner, or a node with the keys of another pair.",
			read: linked(func(p *admin.Pair, set setFunc) {
				for _, r := range slices.Sorted(maps.Keys(p.Strangers)) {
					set(float64(p.Strangers[r]), r)
				}
			}),
		}, {
			Name:  "holdfast_pair_configuration_equal",
			Help:  "1 while what must be alike in the files of both nodes is alike; 0 while it differs.",
			About: "`holdfast status` names the parts. Absent until the other node was heard.",
			read: linked(func(p *admin.Pair, set setFunc) {
				if p.Digest != "" {
					set(boolean(p.Digest == p.Own && len(p.Differs) == 0))
				}
			}),
		}, {
			Name: "holdfast_pair_configuration_info", Labels: []string{"node", "digest"},
			Help:  "Always 1; the labels say which digest each of the two nodes has of what must be alike.",
			About: "`holdfast_config_info` has the digest of the whole file.",
			read: func(n *node, set setFunc) {
				if n.Pair == nil {
					return
				}
				set(1, n.Node, n.Pair.Own)
				if n.Pair.Digest != "" && n.Pair.Node != n.Node {
					set(1, n.Pair.Node, n.Pair.Digest)
				}
			},
		}, {
			Name:  "holdfast_elector_up",
			Help:  "1 while the process that owns the addresses is there; 0 while it is not.",
			About: "Absent where there are no addresses.",
			read: func(n *node, set setFunc) {
				if n.Elector != nil {
					set(boolean(n.Elector.State == "up"))
				}
			},
		},
	}}
}
