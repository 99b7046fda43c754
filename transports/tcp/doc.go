// Package tcp is the transport over TCP connections, for networks that pass neither multicast nor UDP.
//
// Two processes share one connection, dialled by whoever has something to send first; when both begin at the same
// moment there may be two for a while. The dialler introduces itself (see hello), so that both ends know each other by
// the endpoint that they listen on. Packets are framed by their length. Nothing blocks: the sockets are driven by the
// goroutines that call Send and Receive, many packets leave in one system call, and one read takes in whatever has
// come.
//
// What it keeps of a datagram's manners: a packet that finds nobody, or no room in the socket buffer of a peer that
// does not read, is dropped and counted, so that one slow peer holds up nobody else and memory has a limit; a
// connection that breaks loses what was under way, and the next packet dials again. Between, nothing is lost, doubled
// or reordered.
//
// A process holds no more than Config.Connections: those that were idle for long are closed to make room for others, in
// order, so that nothing is lost that was written to them (see limit_linux.go).
//
// What comes from the network is not trusted. Whoever does not introduce himself in time, claims another host's
// address, or sends a length that no packet has, is counted and cut off; no memory is set aside by what he claims.
//
// A process is in one network namespace: connections belong to that of the thread that calls Send.
package tcp
