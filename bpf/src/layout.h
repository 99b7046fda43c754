/* What the programs share with user space: where fields stand in a Khamsin packet, and the records in the maps.
 * layout_test.go compares the packet's offsets with package dataplane/wire. */
#ifndef KHAMSIN_LAYOUT_H
#define KHAMSIN_LAYOUT_H

#include <linux/types.h>

#define PACKET_MAGIC 'K'
#define PACKET_VERSION 1
#define PACKET_HEADER 40 /* bytes of the header in front of every payload */
#define PACKET_CRC 4     /* offset of the CRC32C, little-endian, which covers the packet without this field */
#define PACKET_GROUP 12  /* offset of the group, little-endian; 0: the packet belongs to no group */

#define SLOTS 64    /* transports that share an interface; members are bits of a __u64 */
#define QUEUES 64   /* queues of an interface that can have sockets */
#define RULES 4096  /* addresses, and groups on them, that all of them listen to */
#define VERSION 1   /* of all that follows: processes that share the maps must agree */

/* What a packet is matched by. */
struct rule_key {
	__u8 addr[16];   /* destination; IPv4 in its IPv6-mapped form; all zero: any multicast address */
	__be16 port;     /* UDP destination port */
	__u16 vlan;      /* VLAN identifier, 0 for untagged */
	__u32 group;     /* 0: any */
};

/* What is done with it. User space keeps the masks and derives the rest from them. */
struct rule {
	__u64 members;   /* slots that listen */
	__u64 grouped;   /* those of them that want only groups that they admitted */
	__u64 exclusive; /* those that say that nobody else on this host listens by other means */
	__u32 action;    /* enum action */
	__u32 slot;      /* ACTION_SOCKET: whose socket */
	__u32 flags;     /* RULE_... */
	__u32 counter;   /* index in counters */
};

enum action { ACTION_STACK, ACTION_SOCKET, ACTION_DROP };

#define RULE_BY_GROUP 1      /* all members are grouped: look for the group's own rule */
#define RULE_DROP_UNJOINED 2 /* all members are exclusive: drop groups that have none */

/* What a transport wants of its packets. */
struct slot {
	__u32 limit; /* bytes of the longest frame that its sockets take; longer ones go to the stack */
	__u32 flags; /* SLOT_... */
};

#define SLOT_VERIFY 1 /* drop Khamsin packets with a wrong checksum */

/* The first counters say what became of all packets; the others belong to rules. */
enum reason {
	COUNT_OTHER,     /* not UDP over IP: passed */
	COUNT_MALFORMED, /* lengths that contradict each other: passed, the stack drops it */
	COUNT_FRAGMENT,  /* IP fragment: passed */
	COUNT_FOREIGN,   /* no rule: passed */
	COUNT_STACK,     /* passed by a rule */
	COUNT_LONG,      /* longer than the socket's frames: passed */
	COUNT_SOCKET,    /* handed to a socket */
	COUNT_VACANT,    /* for a socket that is not there at this queue: passed */
	COUNT_UNJOINED,  /* of a group that nobody joined: dropped */
	COUNT_CHECKSUM,  /* wrong checksum: dropped */
	REASONS = 16,    /* room for more */
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

/* Who uses the interface. Read and written by user space, under its lock. */
struct directory {
	__u32 version;
	__u32 zero;
	__u64 members;                      /* slots in use */
	__u64 counters[(RULES + 63) / 64];  /* bits of the rules' counters in use */
};

#endif
