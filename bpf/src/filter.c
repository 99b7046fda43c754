/* The socket filter: drops packets of groups that this process has not joined before they reach its UDP socket, so that
 * it does not wake up for them. What is no packet of Khamsin's goes through: the process counts it. */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "layout.h"

#define PASS 0xffffffff
#define DROP 0

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RULES);
	__type(key, __u32);
	__type(value, __u8);
} admitted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2); /* passed, dropped */
	__type(key, __u32);
	__type(value, __u64);
} filtered SEC(".maps");

static __always_inline void count(__u32 index)
{
	__u64 *n = bpf_map_lookup_elem(&filtered, &index);

	if (n)
		++*n;
}

/* load reads from the start of the IP header, wherever the socket layer has put the data pointer. */
static __always_inline bool load(struct __sk_buff *skb, __u32 offset, void *to, __u32 size)
{
	return bpf_skb_load_bytes_relative(skb, offset, to, size, BPF_HDR_START_NET) == 0;
}

SEC("socket")
int khamsin_filter(struct __sk_buff *skb)
{
	__u8 first = 0;
	__u8 head[PACKET_GROUP + 4] = {};
	__u32 offset;

	if (!load(skb, 0, &first, 1))
		return PASS;
	switch (first >> 4) {
	case 4:
		offset = (first & 0xf) * 4 + 8;
		break;
	case 6:
		offset = 40 + 8;
		break;
	default:
		return PASS;
	}
	__u8 last;
	if (!load(skb, offset, head, sizeof(head)) || !load(skb, offset + PACKET_HEADER - 1, &last, 1))
		return PASS;
	if (head[0] != PACKET_MAGIC || head[1] != PACKET_VERSION)
		return PASS;
	__u32 group = head[PACKET_GROUP] | head[PACKET_GROUP + 1] << 8 | head[PACKET_GROUP + 2] << 16 |
		      (__u32)head[PACKET_GROUP + 3] << 24;
	if (group == 0 || bpf_map_lookup_elem(&admitted, &group)) {
		count(0);
		return PASS;
	}
	count(1);
	return DROP;
}

char __license[] SEC("license") = "Dual BSD/GPL";
