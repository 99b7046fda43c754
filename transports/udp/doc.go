// Package udp is the transport over UDP and IP multicast.
//
// A Transport has one unicast socket, which sends everything, so that From is where the sender is reached, and
// multicast sockets, all bound to the group port, which only receive. Channel n is the group 239.0.0.0 + n. The
// sockets are non-blocking and are driven by the caller's goroutine with system calls of its own: Go's network poller
// would cost more than the packet. Nothing is allocated per call: the message headers lie in one mapped block per
// direction, and payloads are read and written in the frames of the arena.
//
// Sending, consecutive packets of one size to one destination leave as one super-packet that the kernel cuts
// (UDP_SEGMENT), and all messages of a batch by one sendmmsg. Receiving, the kernel hands over packets of one size
// from one sender as one super-packet (UDP_GRO). A lone datagram lands in a frame; those of a super-packet land beside
// the arena and are copied into frames of their own, so that one that is kept does not keep the others' memory. Each of
// these is probed on opening and turned off, for good and with one line in the log,
// when the system refuses it later.
//
// Only one interface is ever used: unicast leaves by it (IP_UNICAST_IF), multicast leaves by it (IP_MULTICAST_IF) and
// is joined on it, and what arrives by another one at a multicast socket is dropped and counted as foreign.
package udp
