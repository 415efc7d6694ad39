package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// later are the keys that a later version will know, by the mapping they are in.
var later = map[string][]string{
	"Service": {"waiting", "hold", "rehome", "client_address", "sources", "accept_proxy", "send_proxy", "keepalive"},
}

// synonyms are what people write for a key, by the mapping it is in: the words of
// other programs, and of those who do not look it up.
var synonyms = map[string]map[string]string{
	"Config": {
		"service": "services", "listeners": "services", "frontends": "services", "servers": "services", "name": "node", "hostname": "node",
		"peer": "pair", "cluster": "pair", "vip": "addresses", "vips": "addresses", "address": "addresses", "groups": "addresses", "vrrp": "addresses", "vrrp_instance": "addresses",
		"socket": "admin", "prometheus": "metrics", "logging": "log", "logs": "log", "dirs": "directories", "directory": "directories",
	},
	"Pair": {
		"address": "listen", "bind": "listen", "local": "listen", "remote": "peer", "other": "peer", "peers": "peer",
		"key": "keys", "tls": "keys", "certificates": "keys", "gateway": "witness", "quorum": "witness",
	},
	"AddressGroup": {
		"address": "addresses", "ips": "addresses", "vips": "addresses", "virtual_ipaddress": "addresses", "dev": "interface", "iface": "interface", "nic": "interface",
		"id": "vrrp", "virtual_router_id": "vrrp", "vrid": "vrrp", "priority": "vrrp", "peers": "vrrp", "preempt": "vrrp",
		"check": "track", "health": "track", "track_script": "track", "track_interface": "track", "command": "track", "hooks": "notify", "scripts": "notify",
	},
	"VRRP": {
		"vrid": "id", "virtual_router_id": "id", "router_id": "id", "prio": "priority", "advert_int": "interval", "advertisement_interval": "interval",
		"peer": "peers", "unicast_peer": "peers", "unicast": "peers", "delay": "preempt_delay",
	},
	"Track":  {"interface": "interfaces", "nics": "interfaces", "script": "command", "argv": "command", "exec": "command", "every": "interval"},
	"Notify": {"master": "active", "notify_master": "active", "notify_backup": "backup", "notify_fault": "fault", "standby": "backup", "up": "active", "down": "backup"},
	"Service": {
		"backend": "backends", "server": "backends", "servers": "backends", "upstream": "backends", "upstreams": "backends", "targets": "backends", "real_server": "backends",
		"bind": "listen", "address": "listen", "addresses": "listen", "port": "listen", "listeners": "listen", "virtual_server": "listen",
		"algorithm": "balance", "lb": "balance", "lb_algo": "balance", "scheduler": "balance", "policy": "balance", "balancing": "balance",
		"check": "health", "checks": "health", "healthcheck": "health", "health_check": "health", "id": "name",
		"timeout": "connect_timeout", "timeout_connect": "connect_timeout", "idle": "idle_timeout", "acl": "allow", "allowed": "allow", "on_lost": "on_backend_lost",
		"drain_timeout": "drain",
	},
	"Backend": {
		"host": "address", "ip": "address", "addr": "address", "server": "address", "port": "address", "id": "name",
		"maxconn": "max_connections", "max_conns": "max_connections", "limit": "max_connections", "spare": "backup",
	},
	"Health": {
		"connect": "tcp", "https": "http", "httpchk": "http", "exec": "command", "script": "command", "argv": "command", "send": "exchange", "expect": "exchange",
		"path": "http", "status": "http", "every": "interval", "inter": "interval", "delay": "interval", "failures": "fall", "successes": "rise", "retries": "fall",
	},
	"TCPCheck": {"ssl": "tls", "host": "address"}, "HTTPCheck": {"uri": "path", "url": "path", "ssl": "tls", "statuses": "status", "code": "status"},
	"ExchangeCheck": {"request": "send", "response": "expect", "receive": "expect", "ssl": "tls"},
	"CommandCheck":  {"command": "argv", "cmd": "argv", "args": "argv", "exec": "argv"},
	"TLS":           {"sni": "server_name", "skip_verify": "insecure", "insecure_skip_verify": "insecure", "verify": "insecure"},
	"Admin":         {"path": "socket", "listen": "socket", "permissions": "mode", "owner": "group"},
	"Metrics":       {"address": "listen", "bind": "listen", "port": "listen"},
	"Log":           {"loglevel": "level", "verbosity": "level", "type": "format"},
}

// meantKeys guesses which keys of the mapping an unknown one stands for, best
// first.
func meantKeys(key string, t reflect.Type, all []field) []string {
	plain := strings.ToLower(strings.ReplaceAll(key, "-", "_"))
	var names []string
	for _, f := range all {
		if f.name == plain {
			return []string{f.name}
		}
		names = append(names, f.name)
	}
	if s := synonyms[t.Name()][plain]; s != "" {
		return []string{s}
	}
	if s, ok := nearest(plain, names); ok {
		return []string{s}
	}
	return nil
}

// unknownKey says in one sentence what to do with a key that does not exist.
func unknownKey(path, key string, t reflect.Type, all []field, n *node) string {
	if slices.Contains(later[t.Name()], key) {
		return fmt.Sprintf("`%s` is not supported by this version; leave it out", key)
	}
	shown := printable(key)
	if key == "" {
		return "the key is empty; write a word before the colon"
	}
	if t.NumField() == 0 {
		return fmt.Sprintf("unknown key `%s`; nothing is set here: write {}", shown)
	}
	if t.Name() == "VRRP" && (key == "nopreempt" || key == "authentication") {
		return fmt.Sprintf("unknown key `%s`; leave it out: %s", shown, map[string]string{
			"nopreempt":      "nothing preempts without `preempt: true`",
			"authentication": "VRRP has none since version 3, and the link of `pair` proves who the other node is",
		}[key])
	}
	if t.Name() == "Health" && (key == "type" || key == "kind" || key == "protocol" || key == "method") {
		return fmt.Sprintf("unknown key `%s`; the kind of check is a key itself, as `http: {path: /healthz}` or `tcp: {}`", shown)
	}
	if meant := meantKeys(key, t, all); meant != nil {
		there := slices.ContainsFunc(n.entries, func(e entry) bool { return e.key == meant[0] })
		plain := strings.ToLower(strings.ReplaceAll(key, "-", "_"))
		switch {
		case there:
			return fmt.Sprintf("unknown key `%s`; `%s` is here already: leave this one out", shown, meant[0])
		case synonyms[t.Name()][plain] != "":
			return fmt.Sprintf("there is no `%s`; the key is `%s`", shown, meant[0])
		}
		return fmt.Sprintf("unknown key `%s`; did you mean `%s`?", shown, meant[0])
	}
	if where := elsewhere(path, key); where != "" {
		return fmt.Sprintf("unknown key `%s`; it belongs %s", shown, where)
	}
	if other, ok := nearest(strings.ToLower(key), lastWords()); ok {
		if where := elsewhere(path, other); where != "" {
			return fmt.Sprintf("unknown key `%s`; did you mean `%s`, which belongs %s?", shown, other, where)
		}
	}
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.name
	}
	return fmt.Sprintf("unknown key `%s`; the keys here are %s", shown, list(names, "and"))
}

// lastWords are the keys of all mappings.
func lastWords() []string {
	var all []string
	for _, k := range Keys() {
		all = append(all, k.Path[strings.LastIndexByte(k.Path, '.')+1:])
	}
	return all
}

// elsewhere says where a key belongs that is unknown in the mapping at path:
// first below it, then anywhere; "" for nowhere.
func elsewhere(path, key string) string {
	path = indices.ReplaceAllString(path, "[]")
	found := ""
	for _, k := range Keys() {
		parent, last := "", k.Path
		if i := strings.LastIndexByte(k.Path, '.'); i >= 0 {
			parent, last = k.Path[:i], k.Path[i+1:]
		}
		where := "in `" + parent + "`"
		if parent == "" {
			where = "at the left, not in another key"
		}
		switch {
		case last != key || parent == path:
		case path != "" && strings.HasPrefix(parent, path):
			return where
		case found == "":
			found = where
		}
	}
	return found
}

// notOneOf says that a value is none of the words.
func notOneOf(text string, words []string) error {
	if s, ok := nearest(strings.ToLower(strings.ReplaceAll(text, "_", "-")), words); ok {
		return fmt.Errorf("%s is none of %s; did you mean %s?", quote(text), list(words, "and"), s)
	}
	if s := meantWords[strings.ToLower(text)]; s != "" && slices.Contains(words, s) {
		return fmt.Errorf("%s is none of %s; did you mean %s?", quote(text), list(words, "and"), s)
	}
	return fmt.Errorf("%s is none of %s; write one of them", quote(text), list(words, "and"))
}

// meantWords are what other programs call the values.
var meantWords = map[string]string{
	"leastconn": "least-connections", "lc": "least-connections", "wlc": "least-connections", "least_conn": "least-connections",
	"rr": "round-robin", "roundrobin": "round-robin", "wrr": "round-robin", "source": "source-hash", "sh": "source-hash", "ip_hash": "source-hash", "maglev": "source-hash",
	"warning": "warn", "err": "error", "notice": "info", "trace": "debug", "user": "relay", "tcp": "relay", "proxy": "relay", "rst": "reset", "logfmt": "text",
}

// nearest finds the word that one or two slips of the finger turn into s.
func nearest(s string, words []string) (string, bool) {
	if len(s) > 40 {
		return "", false
	}
	best, least := "", min(2, len(s)/3)+1
	for _, w := range words {
		if d := distance(s, w); d < least {
			best, least = w, d
		}
	}
	return best, best != ""
}

// distance is how many letters are to be added, removed, changed or swapped with
// their neighbour to make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
