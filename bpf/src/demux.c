/* The XDP demultiplexer: hands Khamsin's packets to the AF_XDP socket of the process that wants them, drops those of
 * groups that nobody on the host joined, and passes everything else to the stack. Whenever in doubt it passes. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "crc32c.h"
#include "layout.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RULES);
	__type(key, struct rule_key);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, SLOTS *QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS + RULES);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct directory);
} directory SEC(".maps");

struct vlan_header {
	__be16 tci;
	__be16 type;
};

/* parsed is what the headers say. payload is the UDP payload, of which the linear part ends at end. */
struct parsed {
	struct rule_key key;
	bool multicast;
	unsigned char *payload;
	__u32 size;
};

static __always_inline void count(__u32 index, __u64 bytes)
{
	struct counter *c = bpf_map_lookup_elem(&counters, &index);

	if (c) {
		c->packets++;
		c->bytes += bytes;
	}
}

static __always_inline int pass(enum reason why, __u64 bytes)
{
	count(why, bytes);
	return XDP_PASS;
}

static __always_inline int drop(enum reason why, __u64 bytes)
{
	count(why, bytes);
	return XDP_DROP;
}

/* parse_udp reads the UDP header at p, with room bytes of IP payload. */
static __always_inline int parse_udp(unsigned char *p, void *end, __u32 room, struct parsed *out)
{
	struct udphdr *udp = (void *)p;

	if ((void *)(udp + 1) > end)
		return COUNT_MALFORMED;
	__u32 size = bpf_ntohs(udp->len);
	if (size < sizeof(*udp) || size > room)
		return COUNT_MALFORMED;
	out->key.port = udp->dest;
	out->payload = p + sizeof(*udp);
	out->size = size - sizeof(*udp);
	return -1;
}

static __always_inline int parse_ipv4(unsigned char *p, void *end, __u64 room, struct parsed *out)
{
	struct iphdr *ip = (void *)p;

	if ((void *)(ip + 1) > end)
		return COUNT_MALFORMED;
	__u32 header = ip->ihl * 4;
	__u32 total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || total < header || total > room)
		return COUNT_MALFORMED;
	if (ip->protocol != IPPROTO_UDP)
		return COUNT_OTHER;
	if (ip->frag_off & bpf_htons(0x3fff)) /* more to come, or not the first */
		return COUNT_FRAGMENT;
	out->key.addr[10] = 0xff;
	out->key.addr[11] = 0xff;
	__builtin_memcpy(out->key.addr + 12, &ip->daddr, 4);
	out->multicast = (out->key.addr[12] & 0xf0) == 0xe0;
	return parse_udp(p + header, end, total - header, out);
}

static __always_inline int parse_ipv6(unsigned char *p, void *end, __u64 room, struct parsed *out)
{
	struct ipv6hdr *ip = (void *)p;

	if ((void *)(ip + 1) > end)
		return COUNT_MALFORMED;
	__u32 size = bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || sizeof(*ip) + size > room)
		return COUNT_MALFORMED;
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		return COUNT_FRAGMENT;
	if (ip->nexthdr != IPPROTO_UDP) /* packets of ours have no extension headers */
		return COUNT_OTHER;
	__builtin_memcpy(out->key.addr, &ip->daddr, 16);
	out->multicast = out->key.addr[0] == 0xff;
	return parse_udp(p + sizeof(*ip), end, size, out);
}

/* parse reads a frame of length bytes. It returns a reason to pass the packet, or -1 when it is UDP. */
static __always_inline int parse(unsigned char *p, void *end, __u64 length, struct parsed *out)
{
	struct ethhdr *eth = (void *)p;
	__u64 header = sizeof(*eth);

	if ((void *)(eth + 1) > end)
		return COUNT_MALFORMED;
	__be16 type = eth->h_proto;
	p += sizeof(*eth);
#pragma unroll
	for (int tags = 0; tags < 2; tags++) {
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		struct vlan_header *vlan = (void *)p;
		if ((void *)(vlan + 1) > end)
			return COUNT_MALFORMED;
		if (tags == 1) /* a tag in a tag: of somebody else's network */
			return COUNT_OTHER;
		out->key.vlan = bpf_ntohs(vlan->tci) & 0xfff;
		type = vlan->type;
		p += sizeof(*vlan);
		header += sizeof(*vlan);
	}
	if (type == bpf_htons(ETH_P_IP))
		return parse_ipv4(p, end, length - header, out);
	if (type == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(p, end, length - header, out);
	return COUNT_OTHER;
}

/* is_packet tells whether a payload begins with a header of Khamsin's. */
static __always_inline bool is_packet(const struct parsed *in, void *end)
{
	return in->size >= PACKET_HEADER && (void *)(in->payload + PACKET_HEADER) <= end &&
	       in->payload[0] == PACKET_MAGIC && in->payload[1] == PACKET_VERSION;
}

static __always_inline __u32 read_le32(const unsigned char *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (__u32)p[3] << 24;
}

/* KEEP makes the compiler use this very value, so that the verifier sees that the one that was checked is the one that is
 * used. */
#define KEEP(value) asm volatile("" : "+r"(value))

/* A checksum in the making. */
struct checksum {
	struct xdp_md *ctx;
	__u64 offset; /* of the first block */
	__u32 crc;
	__u32 short_of; /* not all bytes were there */
};

#define BLOCK 32 /* bytes for which the bounds are checked once */

static __always_inline __u32 update(__u32 crc, __u8 byte)
{
	__u32 index = crc ^ byte;

	KEEP(index); /* the mask stays behind the exclusive or, in which the verifier of Linux 6.1 loses all bounds */
	return crc32c_table[index & 0xff] ^ crc >> 8;
}

/* add_block adds one block; for bpf_loop, which the verifier looks at once and not for every turn. */
static long add_block(__u32 turn, struct checksum *c)
{
	unsigned char *p = (void *)(long)c->ctx->data;
	void *end = (void *)(long)c->ctx->data_end;
	__u64 offset = c->offset + (__u64)turn * BLOCK; /* the same in every turn, to the verifier */

	KEEP(offset);
	if (offset > FRAME_MAX) {
		c->short_of = 1;
		return 1;
	}
	p += offset;
	KEEP(p);
	if ((void *)(p + BLOCK) > end) {
		c->short_of = 1;
		return 1;
	}
	__u32 crc = c->crc;
#pragma unroll
	for (int i = 0; i < BLOCK; i++)
		crc = update(crc, p[i]);
	c->crc = crc;
	return 0;
}

/* checksum_wrong verifies the checksum of a packet that lies in linear memory whole. Others are for the receiver. */
static __noinline int checksum_wrong(struct xdp_md *ctx, __u64 offset, __u64 size)
{
	unsigned char *p = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct checksum c = {.ctx = ctx, .crc = ~0u};

	KEEP(offset);
	KEEP(size);
	if (offset > 128 || size > CRC_MAX || size < PACKET_HEADER)
		return 0;
	p += offset;
	KEEP(p);
	if ((void *)(p + PACKET_HEADER) > end)
		return 0;
	__u32 want = read_le32(p + PACKET_CRC);
#pragma unroll
	for (int i = 0; i < PACKET_CRC; i++)
		c.crc = update(c.crc, p[i]);
	c.offset = offset + PACKET_CRC + 4;
	__u64 rest = size - (PACKET_CRC + 4);
	bpf_loop(rest / BLOCK, add_block, &c, 0);
	if (c.short_of)
		return 0;
	offset = c.offset + rest / BLOCK * BLOCK;
	KEEP(offset);
	if (offset > FRAME_MAX)
		return 0;
	p = (unsigned char *)(long)ctx->data + offset;
	end = (void *)(long)ctx->data_end;
	for (int i = 0; i < BLOCK - 1 && i < rest % BLOCK; i++, p++) {
		KEEP(p);
		if ((void *)(p + 1) > end)
			return 0;
		c.crc = update(c.crc, *p);
	}
	return ~c.crc != want;
}

/* find returns the rule for a packet, and sets *joined to false when the rule wants only other groups. */
static __always_inline struct rule *find(struct parsed *in, void *end, bool *joined)
{
	struct rule *r = bpf_map_lookup_elem(&rules, &in->key);

	*joined = true;
	if (!r && in->multicast) {
		struct rule_key any = {.port = in->key.port, .vlan = in->key.vlan};

		*joined = false;
		return bpf_map_lookup_elem(&rules, &any);
	}
	if (!r || !(r->flags & RULE_BY_GROUP) || !is_packet(in, end))
		return r;
	in->key.group = read_le32(in->payload + PACKET_GROUP);
	if (in->key.group == 0)
		return r;
	struct rule *narrow = bpf_map_lookup_elem(&rules, &in->key);
	if (narrow)
		return narrow;
	*joined = false;
	return r;
}

SEC("xdp.frags")
int khamsin_demux(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u64 length = bpf_xdp_get_buff_len(ctx);
	struct parsed in = {};
	bool joined;

	int why = parse(data, end, length, &in);
	if (why >= 0)
		return pass(why, length);
	struct rule *r = find(&in, end, &joined);
	if (!r)
		return pass(COUNT_FOREIGN, length);
	if (!joined) {
		if (!(r->flags & RULE_DROP_UNJOINED))
			return pass(COUNT_FOREIGN, length);
		return drop(COUNT_UNJOINED, length);
	}
	count(r->counter, length);
	if (r->action == ACTION_DROP)
		return drop(COUNT_UNJOINED, length);
	__u32 index = r->slot;
	struct slot *s = bpf_map_lookup_elem(&slots, &index);
	if (r->action != ACTION_SOCKET || !s)
		return pass(COUNT_STACK, length);
	if (length > s->limit)
		return pass(COUNT_LONG, length);
	if (s->flags & SLOT_VERIFY && is_packet(&in, end) && checksum_wrong(ctx, in.payload - data, in.size))
		return drop(COUNT_CHECKSUM, length);
	if (ctx->rx_queue_index >= QUEUES)
		return pass(COUNT_VACANT, length);
	long verdict = bpf_redirect_map(&sockets, index * QUEUES + ctx->rx_queue_index, XDP_PASS);
	count(verdict == XDP_REDIRECT ? COUNT_SOCKET : COUNT_VACANT, length);
	return verdict;
}

/* Puts the enumerations into the type information, for user space. */
const enum action *unused_action __attribute__((unused));
const enum reason *unused_reason __attribute__((unused));

char __license[] SEC("license") = "Dual BSD/GPL";
