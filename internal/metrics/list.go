package metrics

import (
	"maps"
	"slices"

	"github.com/holdfast-net/holdfast/admin"
)

func nodeMetrics() Group {
	return Group{"The node", []Metric{
		{
			Name: "holdfast_build_info", Labels: []string{"version", "goversion"},
			Help:  "Always 1; the labels say which build runs.",
			About: "Join it to see which nodes still run an old version.",
			read:  func(n *node, set setFunc) { set(1, n.Version, n.goVersion) },
		}, {
			Name: "holdfast_node_info", Labels: []string{"node"},
			Help:  "Always 1; the label is the node's name in its configuration.",
			About: "Two series of one name are two nodes that were given the same name.",
			read:  func(n *node, set setFunc) { set(1, n.Node) },
		}, {
			Name:  "holdfast_start_time_seconds",
			Help:  "When the node started, in seconds since 1970.",
			About: "All counters began then. `changes(...)` of it counts restarts.",
			read:  func(n *node, set setFunc) { seconds(n.Started, set) },
		}, {
			Name: "holdfast_node_state", Labels: []string{"state"},
			Help:  "1 for the state that the node is in: well, degraded or stopping; 0 for the others.",
			About: "What `holdfast status --check` decides by. `holdfast status` says why it is degraded.",
			read:  func(n *node, set setFunc) { oneOf(n.State, nodeStates, set) },
		}, {
			Name: "holdfast_problems", Labels: []string{"code"},
			Help:  "How many problems the node has now, by kind.",
			About: "The kinds: `service_down`, `backend_down`, `reload_refused`, `limit_reached`, `accept_queue`, `listener_gone`, `events_lost`, `source_ports`, `no_way_back`; of addresses and the pair those of [the guide](../guide/addresses.md#when-it-does-not-do-what-it-should). One alert on `> 0` misses nothing that the node itself would complain about.",
			read: func(n *node, set setFunc) {
				codes := slices.Clone(problemCodes)
				for _, p := range n.Problems {
					if !slices.Contains(codes, p.Code) {
						codes = append(codes, p.Code)
					}
				}
				for _, c := range codes {
					set(float64(n.problemCounts[c]), c)
				}
			},
		}, {
			Name: "holdfast_events_lost_total", Counter: true,
			Help:  "Events that could not be written to the events file as fast as they came.",
			About: "Anything above 0 means that the record of what happened has gaps: a full or slow disk, or a reader that stands still.",
			read:  func(n *node, set setFunc) { set(float64(n.lostEvents)) },
		}, {
			Name: "holdfast_log_lines_lost_total", Counter: true,
			Help:  "Log lines that could not be written as fast as they came.",
			About: "The log never makes a connection wait: a blocked standard error loses lines instead.",
			read:  func(n *node, set setFunc) { set(float64(n.lostLogLines)) },
		},
	}}
}

// configured reports only for a node that has a file.
func configured(read func(c *admin.ConfigFile, set setFunc)) func(*node, setFunc) {
	return func(n *node, set setFunc) {
		if n.Config.File != "" {
			read(&n.Config, set)
		}
	}
}

func configMetrics() Group {
	return Group{"The configuration", []Metric{
		{
			Name: "holdfast_config_info", Labels: []string{"file", "digest"},
			Help:  "Always 1; the labels say which file runs, and the first 12 hex digits of its SHA-256.",
			About: "`count by (digest) (holdfast_config_info)` shows nodes whose files differ. Compare with `sha256sum`.",
			read:  configured(func(c *admin.ConfigFile, set setFunc) { set(1, c.File, c.Digest) }),
		}, {
			Name:  "holdfast_config_last_reload_successful",
			Help:  "1 while the last reload was taken, or none was asked for; 0 after one that was refused.",
			About: "0 means that the file has mistakes: the node runs on with the one before, and a restart would fail. `holdfast check` says which.",
			read:  configured(func(c *admin.ConfigFile, set setFunc) { set(boolean(c.Error == "")) }),
		}, {
			Name:  "holdfast_config_loaded_timestamp_seconds",
			Help:  "When the configuration that runs was taken, in seconds since 1970.",
			About: "An annotation for a graph: what changed at that time changed by a reload.",
			read:  configured(func(c *admin.ConfigFile, set setFunc) { seconds(c.Loaded, set) }),
		}, {
			Name:  "holdfast_config_file_changed",
			Help:  "1 while the file on disk is not the configuration that runs.",
			About: "For hours: somebody has changed the file and forgotten `holdfast reload`.",
			read:  configured(func(c *admin.ConfigFile, set setFunc) { set(boolean(c.Changed)) }),
		}, {
			Name: "holdfast_config_reloads_total", Counter: true, Labels: []string{"result"},
			Help:  "Reloads, by result: taken or refused.",
			About: "A refused reload has changed nothing.",
			read: configured(func(c *admin.ConfigFile, set setFunc) {
				set(float64(c.Reloads), "taken")
				set(float64(c.Refused), "refused")
			}),
		},
	}}
}

// The limits of the API.
const (
	limitConnections = "connections"
	limitDescriptors = "descriptors"
	limitMemory      = "memory"
)

// limit finds one of the node's limits, and reports what get takes from it.
func limit(name string, get func(l *admin.Limit) (uint64, bool)) func(*node, setFunc) {
	return func(n *node, set setFunc) {
		for i := range n.Limits {
			if n.Limits[i].Name != name {
				continue
			}
			if v, ok := get(&n.Limits[i]); ok {
				set(float64(v))
			}
			return
		}
	}
}

func used(l *admin.Limit) (uint64, bool) { return l.Used, true }

func bound(l *admin.Limit) (uint64, bool) { return l.Max, l.Max > 0 }

func limitMetrics() Group {
	const none = "Absent while there is no bound."
	return Group{"Limits", []Metric{
		{
			Name: "holdfast_connections",
			Help: "Connections that the node carries now, of all services and in every state.",
			read: limit(limitConnections, used),
		}, {
			Name:  "holdfast_connections_limit",
			Help:  "The most connections that the node will carry; more clients are refused.",
			About: "Two descriptors are needed for each. " + none,
			read:  limit(limitConnections, bound),
		}, {
			Name: "holdfast_descriptors",
			Help: "Open file descriptors.",
			read: limit(limitDescriptors, used),
		}, {
			Name:  "holdfast_descriptors_limit",
			Help:  "The most file descriptors that the node may open.",
			About: "`LimitNOFILE=` in the unit. " + none,
			read:  limit(limitDescriptors, bound),
		}, {
			Name:  "holdfast_memory_bytes",
			Help:  "Memory that counts against the limit of memory.",
			About: "Of the node's control group, or of the machine where the group has no bound.",
			read:  limit(limitMemory, used),
		}, {
			Name:  "holdfast_memory_limit_bytes",
			Help:  "The memory from which on new clients are refused until some is free again.",
			About: none,
			read:  limit(limitMemory, bound),
		}, {
			Name: "holdfast_limit_refused_total", Counter: true, Labels: []string{"limit"},
			Help:  "Clients that were refused because a limit was reached: connections, descriptors or memory.",
			About: "`holdfast status` says which limit it was, who sets it, and how to raise it.",
			read: func(n *node, set setFunc) {
				for _, l := range n.Limits {
					set(float64(l.Reached), l.Name)
				}
			},
		}, {
			Name: "holdfast_limit_last_reached_timestamp_seconds", Labels: []string{"limit"},
			Help:  "When a client was last refused because a limit was reached, in seconds since 1970.",
			About: "Absent while that never happened.",
			read: func(n *node, set setFunc) {
				for _, l := range n.Limits {
					seconds(l.Last, set, l.Name)
				}
			},
		},
	}}
}

// fullest reports what get takes from the way that has the fewest source ports left.
func fullest(get func(w *admin.SourceWay) int) func(*node, setFunc) {
	return func(n *node, set setFunc) {
		if n.Sources == nil || len(n.Sources.Ways) == 0 {
			return
		}
		least := &n.Sources.Ways[0]
		for i := range n.Sources.Ways {
			if w := &n.Sources.Ways[i]; w.Max-w.Used < least.Max-least.Used {
				least = w
			}
		}
		set(float64(get(least)))
	}
}

// sourceMetrics are of backend legs that are bound to an address.
func sourceMetrics() Group {
	return Group{"Backend legs on an address of a pair", []Metric{
		{
			Name:  "holdfast_source_ports",
			Help:  "Source ports in use from one address to one backend, where the fewest are left.",
			About: "`sources.ways` of the status has all of them. Absent while no backend leg was bound to an address.",
			read:  fullest(func(w *admin.SourceWay) int { return w.Used }),
		}, {
			Name:  "holdfast_source_ports_limit",
			Help:  "The most source ports from that address to that backend.",
			About: "Connections beyond are made from the node's own address, and their backends cannot be told after a takeover.",
			read:  fullest(func(w *admin.SourceWay) int { return w.Max }),
		}, {
			Name: "holdfast_unbound_connections_total", Counter: true, Labels: []string{"reason"},
			Help:  "Connections whose backend leg had to come from the node's own address: ports, no_way or away.",
			About: "`ports`: all were in use; `no_way`: the backend does not answer to the address; `away`: the address had left the node.",
			read: func(n *node, set setFunc) {
				if n.Sources == nil {
					return
				}
				for _, reason := range slices.Sorted(maps.Keys(n.Sources.Unbound)) {
					set(float64(n.Sources.Unbound[reason]), reason)
				}
			},
		},
	}}
}

// eachService reports for every service.
func eachService(read func(s *service, set setFunc)) func(*node, setFunc) {
	return func(n *node, set setFunc) {
		for _, s := range n.services {
			read(s, set)
		}
	}
}

func serviceMetrics() Group {
	return Group{"Services", []Metric{
		{
			Name: "holdfast_service_up", Labels: []string{"service"},
			Help:  "1 while a backend of the service can take a client; 0 while its clients are refused.",
			About: "The alert to wake somebody for. Absent for a service that was removed and drains, and while the node stops: they take no clients on purpose.",
			read: eachService(func(s *service, set setFunc) {
				if s.State != serviceDrain {
					set(boolean(s.State == serviceUp), s.Name)
				}
			}),
		}, {
			Name: "holdfast_service_connections", Labels: []string{"service", "state"},
			Help:  "Connections of the service now: active (established) or inactive (being made, or ending).",
			About: "As IPVS counts them. Many inactive ones are clients that wait for a backend to accept.",
			read: eachService(func(s *service, set setFunc) {
				set(float64(s.Active), s.Name, "active")
				set(float64(s.Inactive), s.Name, "inactive")
			}),
		}, {
			Name: "holdfast_service_accepted_total", Counter: true, Labels: []string{"service"},
			Help:  "Clients that were accepted, those included that were refused afterwards.",
			About: "`rate(...)` of it is new connections per second.",
			read:  eachService(func(s *service, set setFunc) { set(float64(s.Total), s.Name) }),
		}, {
			Name: "holdfast_service_refused_total", Counter: true, Labels: []string{"service", "cause"},
			Help:  "Clients that were refused, by cause: no_backend, unreachable, not_allowed or resources.",
			About: "Told by RST at once. `not_allowed` is the client's own doing; each of the others is a client that should have been served.",
			read: func(n *node, set setFunc) {
				t := newTable(2)
				for _, s := range n.services {
					for _, c := range refusals {
						t.add(0, s.Name, c)
					}
				}
				for _, e := range n.ends {
					if slices.Contains(refusals, e.Cause) {
						t.add(float64(e.Count), e.Service, e.Cause)
					}
				}
				t.report(set)
			},
		}, {
			Name: "holdfast_service_ended_total", Counter: true, Labels: []string{"service", "cause", "by"},
			Help:  "Connections that ended other than by a refusal, by cause and by the side that it came from: client, backend or holdfast.",
			About: "[Read an ending](../guide/endings.md) says what each cause means. `closed` is how it should be; `backend_down` is what health checks cost.",
			read: func(n *node, set setFunc) {
				t := newTable(3)
				for _, s := range n.services {
					for _, e := range endings {
						t.add(0, s.Name, e.cause, e.by)
					}
				}
				for _, e := range n.ends {
					if !slices.Contains(refusals, e.Cause) {
						t.add(float64(e.Count), e.Service, e.Cause, e.By)
					}
				}
				t.report(set)
			},
		}, {
			Name: "holdfast_service_told_total", Counter: true, Labels: []string{"service", "cause", "side"},
			Help:  "Ends of connections that were told by a RST, by the cause of the ending and by side: client or backend.",
			About: "A connection whose both ends are told counts once for each.",
			read: func(n *node, set setFunc) {
				t := newTable(3)
				for _, s := range n.services {
					for _, e := range endings {
						if e.cause != "closed" {
							t.add(0, s.Name, e.cause, byClient)
							t.add(0, s.Name, e.cause, byBackend)
						}
					}
					for _, c := range refusals {
						t.add(0, s.Name, c, byClient)
					}
				}
				for _, e := range n.ends {
					if e.ToldClient > 0 {
						t.add(float64(e.ToldClient), e.Service, e.Cause, byClient)
					}
					if e.ToldBackend > 0 {
						t.add(float64(e.ToldBackend), e.Service, e.Cause, byBackend)
					}
				}
				t.report(set)
			},
		}, {
			Name: "holdfast_service_undelivered_bytes_total", Counter: true, Labels: []string{"service"},
			Help:  "Bytes that one side had sent and the other side's kernel had not acknowledged when the connection ended.",
			About: "What endings have cost. 0 for connections that were closed.",
			read: func(n *node, set setFunc) {
				t := newTable(1)
				for _, s := range n.services {
					t.add(0, s.Name)
				}
				for _, e := range n.ends {
					t.add(float64(e.Undelivered), e.Service)
				}
				t.report(set)
			},
		}, {
			Name: "holdfast_service_bytes_total", Counter: true, Labels: []string{"service", "direction"},
			Help: "Bytes received from clients (in) and from backends (out), those of live connections included.",
			read: eachService(func(s *service, set setFunc) {
				set(float64(s.BytesIn), s.Name, "in")
				set(float64(s.BytesOut), s.Name, "out")
			}),
		},
	}}
}

// eachListener reports for every address where clients connect.
func eachListener(read func(l *admin.Listener) float64) func(*node, setFunc) {
	return eachService(func(s *service, set setFunc) {
		for _, l := range s.listeners {
			set(read(l), s.Name, l.Address)
		}
	})
}

func listenerMetrics() Group {
	labels := []string{"service", "address"}
	return Group{"Listeners", []Metric{
		{
			Name: "holdfast_listener_queue_length", Labels: labels,
			Help:  "Clients that the kernel has accepted and that wait for the node to do so.",
			About: "Above 0 in more than one scrape: the node is short of processor time.",
			read:  eachListener(func(l *admin.Listener) float64 { return float64(l.Queue) }),
		}, {
			Name: "holdfast_listener_queue_limit", Labels: labels,
			Help:  "The most clients that can wait in the accept queue.",
			About: "`net.core.somaxconn` bounds it.",
			read:  eachListener(func(l *admin.Listener) float64 { return float64(l.QueueMax) }),
		}, {
			Name: "holdfast_listener_dropped_total", Counter: true, Labels: labels,
			Help:  "Connects that the kernel dropped at this listener, most of them because its accept queue was full.",
			About: "Such a client tries again after 1 s, 3 s, 7 s: it does not fail, it is slow, and nothing else shows it.",
			read:  eachListener(func(l *admin.Listener) float64 { return float64(l.Dropped) }),
		},
	}}
}

// eachBackend reports for every backend of every service.
func eachBackend(read func(b *admin.Backend, set setFunc)) func(*node, setFunc) {
	return eachService(func(s *service, set setFunc) {
		for _, b := range s.backends {
			read(b, func(value float64, labels ...string) {
				set(value, append([]string{s.Name, b.Name}, labels...)...)
			})
		}
	})
}

func backendMetrics() Group {
	labels := func(more ...string) []string { return append([]string{"service", "backend"}, more...) }
	return Group{"Backends", []Metric{
		{
			Name: "holdfast_backend_info", Labels: labels("address", "check"),
			Help:  "Always 1; the labels say where the backend is, and how it is checked.",
			About: "Join it to have the address beside another metric.",
			read:  eachBackend(func(b *admin.Backend, set setFunc) { set(1, b.Address, b.Check.Kind) }),
		}, {
			Name: "holdfast_backend_state", Labels: labels("state"),
			Help:  "1 for the state that the backend is in: up, down or drain; 0 for the others.",
			About: "`drain` is a weight of 0, from the file or by hand.",
			read:  eachBackend(func(b *admin.Backend, set setFunc) { oneOf(b.State, backendStates, set) }),
		}, {
			Name: "holdfast_backend_state_timestamp_seconds", Labels: labels(),
			Help:  "Since when the backend is up or down, in seconds since 1970.",
			About: "`changes(...)` of it counts how often a backend flaps. Absent until the first verdict of its checks.",
			read:  eachBackend(func(b *admin.Backend, set setFunc) { seconds(b.Since, set) }),
		}, {
			Name: "holdfast_backend_weight", Labels: labels(),
			Help:  "The weight by which new clients are shared out; 0 is drain.",
			About: "As it is in effect, what was set by hand included.",
			read:  eachBackend(func(b *admin.Backend, set setFunc) { set(float64(b.Weight)) }),
		}, {
			Name: "holdfast_backend_by_hand", Labels: labels(),
			Help:  "1 while a command has changed what the file says of this backend.",
			About: "For days: a maintenance that nobody has ended.",
			read:  eachBackend(func(b *admin.Backend, set setFunc) { set(boolean(b.ByHand != nil)) }),
		}, {
			Name: "holdfast_backend_connections", Labels: labels("state"),
			Help:  "Connections of the backend now: active (established) or inactive (being made, or ending).",
			About: "As IPVS counts them. For a drained backend: 0 and 0 is the moment to switch it off.",
			read: eachBackend(func(b *admin.Backend, set setFunc) {
				set(float64(b.Active), "active")
				set(float64(b.Inactive), "inactive")
			}),
		}, {
			Name: "holdfast_backend_connections_limit", Labels: labels(),
			Help:  "The most connections that the backend is given (max_connections).",
			About: "Absent for a backend without a limit.",
			read: eachBackend(func(b *admin.Backend, set setFunc) {
				if b.MaxConnections > 0 {
					set(float64(b.MaxConnections))
				}
			}),
		}, {
			Name: "holdfast_backend_established_total", Counter: true, Labels: labels(),
			Help:  "Connections that were established with the backend since it was added.",
			About: "`rate(...)` by backend shows whether the weights do what they should.",
			read:  eachBackend(func(b *admin.Backend, set setFunc) { set(float64(b.Total)) }),
		}, {
			Name: "holdfast_backend_bytes_total", Counter: true, Labels: labels("direction"),
			Help: "Bytes received from the backend's clients (in) and from the backend (out), those of live connections included.",
			read: eachBackend(func(b *admin.Backend, set setFunc) {
				set(float64(b.BytesIn), "in")
				set(float64(b.BytesOut), "out")
			}),
		},
	}}
}

func checkMetrics() Group {
	labels := []string{"service", "backend"}
	return Group{"Health checks", []Metric{
		{
			Name: "holdfast_backend_checks_total", Counter: true, Labels: labels,
			Help:  "Health checks of the backend.",
			About: "Stands still for a backend with `none`.",
			read:  eachBackend(func(b *admin.Backend, set setFunc) { set(float64(b.Check.Checks)) }),
		}, {
			Name: "holdfast_backend_check_failures_total", Counter: true, Labels: []string{"service", "backend", "seen_by"},
			Help:  "Failures that count towards taking the backend down, by what met them: a check, or a connection.",
			About: "A connection meets one when its connect is refused or times out. Failures without a change of state are a backend near its end, or a `timeout` that is too short.",
			read: eachBackend(func(b *admin.Backend, set setFunc) {
				set(float64(b.Check.Failures), "check")
				set(float64(b.Check.Reported), "connection")
			}),
		}, {
			Name: "holdfast_backend_check_distrusted_total", Counter: true, Labels: labels,
			Help:  "Failures that were not counted, because this machine was late itself or lacked the means to check.",
			About: "When it grows, the node is starved: of processor time, descriptors or memory.",
			read:  eachBackend(func(b *admin.Backend, set setFunc) { set(float64(b.Check.Distrusted)) }),
		}, {
			Name: "holdfast_backend_last_check_timestamp_seconds", Labels: labels,
			Help:  "When the last check of the backend began, in seconds since 1970.",
			About: "Absent before the first one.",
			read:  eachBackend(func(b *admin.Backend, set setFunc) { seconds(b.Check.Last, set) }),
		},
	}}
}
