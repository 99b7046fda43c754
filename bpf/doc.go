// Package bpf owns Khamsin's programs in the kernel, their maps, and what is needed to load them.
//
// There are two. The demultiplexer (src/demux.c) is an XDP program on one interface: it hands packets of ours to the
// AF_XDP socket of the process that wants them, can drop groups that nobody on the host joined, and passes everything
// else to the stack. The filter (src/filter.c) sits on ordinary UDP sockets and drops packets of groups that their
// process has not joined. Both are compiled by `make generate`; the objects are committed, so that building Khamsin
// takes no clang.
//
// An interface has room for one XDP program, so the processes of a host share it: the first one attaches it and fills
// the maps, the others find both by the program's number on the interface. Each holds the bpf_link, nothing is pinned
// to a file system, and the kernel takes the program off when the last of them is gone, however it went. A process that
// dies leaves rules behind that lead nowhere; they pass its packets to the stack, and the next process that changes a
// rule removes them. docs/decisions/0004-own-af-xdp.md has the reasons.
//
// A transport makes one Demux and one Filter for itself. Their methods may be called by any goroutine. Nothing here is
// on the path of a packet; that is the programs' part.
package bpf
