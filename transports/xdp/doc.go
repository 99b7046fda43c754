// Package xdp is the transport over AF_XDP sockets: packets of ours go past the kernel's network stack, both ways.
//
// The arena of frames is the sockets' UMEM, so the driver, or the kernel on its behalf, writes packets where they are
// read, and takes them from where they were written. There is one socket for each receive queue. The demultiplexer of
// package bpf steers to them what this process wants and passes everything else to the stack.
//
// The other half of the transport is one over UDP (package udp), which holds the port, joins the multicast groups, and
// carries all that AF_XDP cannot: packets between processes of one host, to hosts whose Ethernet address is not known
// yet, larger than a frame or in IP fragments, and multicasts that others on this host listen to as well. Receive reads
// both. So nothing depends on the program: what it passes on comes by the stack, and is received all the same.
//
//	       Send                               Receive
//	         |                                   |
//	 route known, not this host?         RX rings, then sockets
//	    | yes          | no                 ^            ^
//	TX ring       UDP socket            AF_XDP       UDP sockets
//	    |              |                    ^            ^
//	    +---- wire ----+               demultiplexer --> stack
//
// Headers are written in front of the payload, into the frame's headroom. A frame that is on its way already, or whose
// payload does not stand behind a headroom of its own, is copied. UDP checksums are left out on sending and not
// verified on receiving, since packets from this host's stack carry unfinished ones: the packet format has its own
// checksum. There are no IP fragments: the MTU is what fits a frame on the wire, and the engines fragment.
//
// Only the interface of the configuration is used. Loopback is refused: nothing is gained there.
package xdp
