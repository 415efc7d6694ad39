// Who is connected to a set of local addresses: see the package comment. One
// program is told of each change of a socket's state, the other one walks the
// table of sockets. Kernel structures are named by what is read of them; where
// it lies in them is found when the programs are loaded (CO-RE).

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6

// The states of a TCP socket.
enum {
	ESTABLISHED = 1,
	FIN_WAIT1 = 4,
	FIN_WAIT2 = 5,
	CLOSE = 7,
	CLOSE_WAIT = 8,
	LAST_ACK = 9,
	CLOSING = 11,
};

// Those in which the other end may still wait for this one.
#define CONNECTED \
	(1 << ESTABLISHED | 1 << FIN_WAIT1 | 1 << FIN_WAIT2 | 1 << CLOSE_WAIT | 1 << LAST_ACK | 1 << CLOSING)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
};

struct net {
	__u64 net_cookie;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__be32 skc_daddr, skc_rcv_saddr;
	__be16 skc_dport;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 snd_una, snd_nxt, rcv_nxt;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

#pragma clang attribute pop

struct address {
	__be32 word[4]; // in network order; IPv4 as ::ffff:a.b.c.d
};

// What is told of a socket; tracer_linux.go reads it.
struct told {
	__u64 cookie;
	__u64 at; // CLOCK_BOOTTIME
	struct address local, remote;
	__be16 local_port, remote_port;
	__u32 kind;
	__u32 snd_una, snd_nxt, rcv_nxt;
	__u32 unused;
};

enum kind { IS_ESTABLISHED = 1, IS_CLOSED = 2 };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u8);
} hf_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} hf_changes SEC(".maps");

// How many changes found no room in hf_changes.
__u64 lost = 0;

// The network namespace whose sockets are told of.
const volatile __u64 netns = 0;

// address_of takes the local or the remote address of a socket.
static __always_inline int address_of(const struct sock_common *skc, int local, struct address *a)
{
	if (skc->skc_family == AF_INET) {
		a->word[0] = a->word[1] = 0;
		a->word[2] = bpf_htonl(0xffff);
		a->word[3] = local ? skc->skc_rcv_saddr : skc->skc_daddr;
		return 1;
	}
	// A kernel without IPv6 has no such fields, and no such sockets.
	if (skc->skc_family != AF_INET6 || !bpf_core_field_exists(skc->skc_v6_daddr))
		return 0;
	for (int i = 0; i < 4; i++)
		a->word[i] = local ? skc->skc_v6_rcv_saddr.in6_u.u6_addr32[i] : skc->skc_v6_daddr.in6_u.u6_addr32[i];
	return 1;
}

// fill tells of a socket; the addresses are there already.
static __always_inline void fill(struct told *t, struct tcp_sock *tp, __u32 kind)
{
	struct sock_common *skc = &tp->inet_conn.icsk_inet.sk.__sk_common;
	t->cookie = bpf_get_socket_cookie(tp);
	t->at = bpf_ktime_get_boot_ns();
	t->local_port = tp->inet_conn.icsk_inet.inet_sport;
	t->remote_port = skc->skc_dport;
	t->kind = kind;
	t->snd_una = tp->snd_una;
	t->snd_nxt = tp->snd_nxt;
	t->rcv_nxt = tp->rcv_nxt;
	t->unused = 0;
}

// (const struct sock *sk, const int oldstate, const int newstate)
SEC("tp_btf/inet_sock_set_state")
int holdfast_state(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	int was = (int)ctx[1], is = (int)ctx[2];
	__u32 kind = IS_ESTABLISHED;
	struct address local, remote;

	if (is == CLOSE && was >= 0 && was < 32 && CONNECTED >> was & 1)
		kind = IS_CLOSED;
	else if (is != ESTABLISHED)
		return 0;
	if (sk->sk_protocol != IPPROTO_TCP || sk->__sk_common.skc_net.net->net_cookie != netns)
		return 0;
	if (!address_of(&sk->__sk_common, 1, &local) || !bpf_map_lookup_elem(&hf_addresses, &local))
		return 0;
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || !address_of(&sk->__sk_common, 0, &remote))
		return 0;
	struct told *t = bpf_ringbuf_reserve(&hf_changes, sizeof(*t), 0);
	if (!t) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	t->local = local;
	t->remote = remote;
	fill(t, tp, kind);
	bpf_ringbuf_submit(t, 0);
	return 0;
}

SEC("iter/tcp")
int holdfast_sockets(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct told t;

	// Listeners are here, too, and what is left of connections (TIME_WAIT).
	if (!skc || !(CONNECTED >> (skc->skc_state & 31) & 1))
		return 0;
	if (!address_of(skc, 1, &t.local) || !bpf_map_lookup_elem(&hf_addresses, &t.local) || !address_of(skc, 0, &t.remote))
		return 0;
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	fill(&t, tp, IS_ESTABLISHED);
	bpf_seq_write(ctx->meta->seq, &t, sizeof(t));
	return 0;
}

char __license[] SEC("license") = "Dual MIT/GPL";
