// The kernel's half of a lease: see the package comment. Two programs share
// three maps; each looks its frame's address up and asks the clock.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

// What a program on TCX may answer, and the type of a packet for this host:
// older headers lack both.
#define NEXT (-1)
#define DROP 2
#define PACKET_HOST 0

#define ETH_HLEN 14
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_IPV6 0x86dd
#define IPPROTO_TCP 6
#define IPPROTO_ICMPV6 58
#define IP6_HLEN 40
#define ROUTER_SOLICITATION 133
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136
#define REDIRECT 137
#define ARP_REQUEST 1

#define SLOTS 4096

// The modes of entry.go. An address that nothing is known of is open, and so
// is one whose entry ended more than the grace ago.
enum mode { CLOSED, OWN, HANDING, TAKING, PASSING, OPEN };
#define MODE 7ULL

// The counters of gate_linux.go.
enum counter { CLOSED_IN, CLOSED_OUT, ASKS_IN, CLAIMS_OUT, NOT_FROM_PEER, UNNAMED, HANDED, PASSED_ON, COUNTERS };

struct address {
	__u32 word[4]; // in network order; IPv4 as ::ffff:a.b.c.d
};

struct entry {
	__u64 state;   // end of the mode, of CLOCK_BOOTTIME; its lowest three bits are the mode
	__u64 peer;    // its Ethernet address, the first byte lowest
	__u64 claimed; // by a process that has given this slot an address
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__type(key, struct address);
	__type(value, __u32);
} hf1_slots SEC(".maps");

// Processes write here without a system call.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct entry);
} hf1_entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} hf1_counts SEC(".maps");

// How long after its end an entry still closes its address, in nanoseconds.
const volatile __u64 grace = 60000000000ULL;

static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&hf1_counts, &which);
	if (n)
		(*n)++;
}

static __always_inline int drop(__u32 why)
{
	count(why);
	return DROP;
}

static __always_inline enum mode look(const struct address *a, __u64 *peer)
{
	__u32 *slot = bpf_map_lookup_elem(&hf1_slots, a);
	if (!slot)
		return OPEN;
	struct entry *e = bpf_map_lookup_elem(&hf1_entries, slot);
	if (!e)
		return OPEN;
	// The mode and its end are read at once: they belong together.
	__u64 state = *(volatile __u64 *)&e->state;
	__u64 until = state & ~MODE;
	__u64 now = bpf_ktime_get_boot_ns();
	*peer = *(volatile __u64 *)&e->peer;
	if (now < until)
		return state & MODE;
	if (now - until < grace)
		return CLOSED;
	return OPEN;
}

static __always_inline struct address mapped(__u32 ip4)
{
	struct address a = {{0, 0, bpf_htonl(0xffff), ip4}};
	return a;
}

// The beginning of a frame: what every ARP, IPv4 and IPv6 frame has.
struct start {
	__u8 to[6], from[6];
	__be16 type;
	union {
		struct {
			__u8 version_and_length, tos;
			__be16 length, id, fragment;
			__u8 ttl, protocol;
			__be16 checksum;
			__be32 src, dst;
		} __attribute__((packed)) ip4;
		struct {
			__be32 version;
			__be16 length;
			__u8 next, hops;
			struct address src; // 8 bytes of it are in the 34 that are loaded
		} __attribute__((packed)) ip6;
		struct {
			__be16 hardware, protocol;
			__u8 hardware_length, protocol_length;
			__be16 operation;
			__u8 sender_mac[6];
			__be32 sender;
			__u8 rest[2];
		} __attribute__((packed)) arp;
	};
} __attribute__((packed));

#define START 34

static __always_inline int from_peer(const struct start *f, __u64 peer)
{
	for (int i = 0; i < 6; i++)
		if (f->from[i] != (__u8)(peer >> (8 * i)))
			return 0;
	return 1;
}

// Out of the interface that the frame came in by, from us to the peer.
static __always_inline int send_on(struct __sk_buff *skb, const struct start *f, __u64 peer, __u32 why)
{
	__u8 macs[12];
	for (int i = 0; i < 6; i++) {
		macs[i] = peer >> (8 * i);
		macs[6 + i] = f->to[i];
	}
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return DROP;
	count(why);
	return bpf_redirect(skb->ifindex, 0);
}

// Whether the TCP segment whose header is at offset belongs to no connection
// of this machine: it begins one, or it is of one that the peer has.
static __always_inline int strange(struct __sk_buff *skb, const struct start *f, const struct address *to, __u32 offset)
{
	const __u8 fin = 0x01, syn = 0x02, ack = 0x10;
	struct {
		__be16 source, dest;
		__be32 seq, ack_seq;
		__u8 length, flags;
	} tcp;
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 state;

	if (bpf_skb_load_bytes(skb, offset, &tcp, 14))
		return 0;
	if ((tcp.flags & (syn | ack)) == syn)
		return 1;
	if (f->type == bpf_htons(ETH_P_IP)) {
		tuple.ipv4.saddr = f->ip4.src;
		tuple.ipv4.daddr = f->ip4.dst;
		tuple.ipv4.sport = tcp.source;
		tuple.ipv4.dport = tcp.dest;
		sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 8, tuple.ipv6.saddr, 16))
			return 0;
		__builtin_memcpy(tuple.ipv6.daddr, to, 16);
		tuple.ipv6.sport = tcp.source;
		tuple.ipv6.dport = tcp.dest;
		sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return 1;
	state = sk->state;
	bpf_sk_release(sk);
	if (state == BPF_TCP_LISTEN)
		return 1;
	// What is over here may be a new connection there, of a port that the
	// client uses again. The end of the old one is answered here.
	return state == BPF_TCP_TIME_WAIT && !(tcp.flags & fin);
}

// An IP frame to address a. tcp is where its TCP header is, or 0.
static __always_inline int ip_in(struct __sk_buff *skb, const struct start *f, const struct address *a, __u32 tcp)
{
	__u64 peer = 0;
	switch (look(a, &peer)) {
	case CLOSED:
		return drop(CLOSED_IN);
	case HANDING:
		// A frame that the peer sent on is not sent back.
		if (tcp && skb->pkt_type == PACKET_HOST && !from_peer(f, peer) && strange(skb, f, a, tcp))
			return send_on(skb, f, peer, HANDED);
		return NEXT;
	case TAKING:
		return from_peer(f, peer) ? NEXT : drop(NOT_FROM_PEER);
	case PASSING:
		if (skb->pkt_type == PACKET_HOST && !from_peer(f, peer))
			return send_on(skb, f, peer, PASSED_ON);
		return drop(CLOSED_IN);
	default:
		return NEXT;
	}
}

static __always_inline int silent(enum mode m)
{
	return m == CLOSED || m == TAKING || m == PASSING;
}

SEC("tcx/ingress")
int holdfast_in(struct __sk_buff *skb)
{
	struct start f;
	struct address a;
	__u64 peer = 0;
	if (skb->vlan_present || bpf_skb_load_bytes(skb, 0, &f, START))
		return NEXT;
	if (f.type == bpf_htons(ETH_P_IP)) {
		__u32 tcp = 0;
		if (f.ip4.protocol == IPPROTO_TCP && !(f.ip4.fragment & bpf_htons(0x1fff)))
			tcp = ETH_HLEN + 4 * (f.ip4.version_and_length & 15);
		a = mapped(f.ip4.dst);
		return ip_in(skb, &f, &a, tcp);
	}
	if (f.type == bpf_htons(ETH_P_IPV6)) {
		const __u32 payload = ETH_HLEN + IP6_HLEN;
		if (f.ip6.next == IPPROTO_ICMPV6) {
			__u8 type = 0;
			bpf_skb_load_bytes(skb, payload, &type, 1);
			if (type == NEIGHBOUR_SOLICITATION) {
				if (bpf_skb_load_bytes(skb, payload + 8, &a, sizeof(a)))
					return NEXT;
				return silent(look(&a, &peer)) ? drop(ASKS_IN) : NEXT;
			}
			// Answers, also to what we ask for the address.
			if (type >= ROUTER_SOLICITATION && type <= REDIRECT)
				return NEXT;
		}
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 24, &a, sizeof(a)))
			return NEXT;
		return ip_in(skb, &f, &a, f.ip6.next == IPPROTO_TCP ? payload : 0);
	}
	if (f.type == bpf_htons(ETH_P_ARP)) {
		__be32 target;
		if (f.arp.operation != bpf_htons(ARP_REQUEST) || bpf_skb_load_bytes(skb, 38, &target, 4))
			return NEXT;
		// Who names himself announces, and wants no answer.
		if (f.arp.sender == target)
			return NEXT;
		a = mapped(target);
		return silent(look(&a, &peer)) ? drop(ASKS_IN) : NEXT;
	}
	return NEXT;
}

// What the kernel asks of neighbours in the name of an address that is being
// taken is asked in nobody's name, as duplicate address detection does: the
// answer is the same, and nobody learns a new place of the address.

static __always_inline int ask_unnamed_arp(struct __sk_buff *skb)
{
	__be32 nobody = 0;
	if (bpf_skb_store_bytes(skb, 28, &nobody, 4, 0))
		return drop(CLAIMS_OUT);
	count(UNNAMED);
	return NEXT;
}

// A neighbour solicitation to a group, with the one option that says who asks.
// Without a source there is no option (RFC 4861, section 4.3).
static __always_inline int ask_unnamed_ns(struct __sk_buff *skb, const struct address *src)
{
	struct {
		struct address src;
		__u8 option[8];
		__be32 length; // as in the pseudo-header
	} was, is = {{{0, 0, 0, 0}}, {0}, bpf_htonl(24)};
	const __u32 payload = ETH_HLEN + IP6_HLEN;
	__u8 group;
	__be16 sum, length = bpf_htons(24);

	was.src = *src;
	was.length = bpf_htonl(32);
	if (skb->len != payload + 32 ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + 24, &group, 1) || group != 0xff ||
	    bpf_skb_load_bytes(skb, payload + 24, was.option, 8) || was.option[0] != 1 || was.option[1] != 1 ||
	    bpf_skb_load_bytes(skb, payload + 2, &sum, 2))
		return drop(CLAIMS_OUT);
	__s64 diff = bpf_csum_diff((__be32 *)&was, sizeof(was), (__be32 *)&is, sizeof(is), (__u16)~sum);
	if (diff < 0)
		return drop(CLAIMS_OUT);
	__u32 fold = (__u32)diff;
	fold = (fold & 0xffff) + (fold >> 16);
	fold = (fold & 0xffff) + (fold >> 16);
	sum = ~fold;
	if (bpf_skb_store_bytes(skb, ETH_HLEN + 4, &length, 2, 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + 8, &is.src, sizeof(is.src), 0) ||
	    bpf_skb_store_bytes(skb, payload + 2, &sum, 2, 0) ||
	    bpf_skb_change_tail(skb, payload + 24, 0))
		return drop(CLAIMS_OUT);
	count(UNNAMED);
	return NEXT;
}

static __always_inline int ip_out(const struct address *src)
{
	__u64 peer = 0;
	enum mode m = look(src, &peer);
	return m == CLOSED || m == PASSING ? drop(CLOSED_OUT) : NEXT;
}

SEC("tcx/egress")
int holdfast_out(struct __sk_buff *skb)
{
	struct start f;
	struct address a;
	__u64 peer = 0;
	enum mode m;
	if (skb->vlan_present || bpf_skb_load_bytes(skb, 0, &f, START))
		return NEXT;
	if (f.type == bpf_htons(ETH_P_IP)) {
		a = mapped(f.ip4.src);
		return ip_out(&a);
	}
	if (f.type == bpf_htons(ETH_P_IPV6)) {
		const __u32 payload = ETH_HLEN + IP6_HLEN;
		__u8 type = 0;
		if (f.ip6.next == IPPROTO_ICMPV6)
			bpf_skb_load_bytes(skb, payload, &type, 1);
		if (type == NEIGHBOUR_ADVERTISEMENT) {
			if (!bpf_skb_load_bytes(skb, payload + 8, &a, sizeof(a)) && silent(look(&a, &peer)))
				return drop(CLAIMS_OUT);
		}
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 8, &a, sizeof(a)))
			return NEXT;
		if (type < ROUTER_SOLICITATION || type > REDIRECT)
			return ip_out(&a);
		m = look(&a, &peer);
		if (m == TAKING && type == NEIGHBOUR_SOLICITATION)
			return ask_unnamed_ns(skb, &a);
		return silent(m) ? drop(CLAIMS_OUT) : NEXT;
	}
	if (f.type == bpf_htons(ETH_P_ARP)) {
		__be32 target;
		a = mapped(f.arp.sender);
		m = look(&a, &peer);
		if (!silent(m))
			return NEXT;
		if (m == TAKING && f.arp.operation == bpf_htons(ARP_REQUEST) &&
		    !bpf_skb_load_bytes(skb, 38, &target, 4) && target != f.arp.sender)
			return ask_unnamed_arp(skb);
		return drop(CLAIMS_OUT);
	}
	return NEXT;
}

char __license[] SEC("license") = "Dual MIT/GPL";
