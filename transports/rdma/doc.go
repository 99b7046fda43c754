// Package rdma is the transport over RDMA verbs: InfiniBand's datagrams, reliable connections and one-sided writes,
// over RoCE v2 and its software form (rdma_rxe).
//
// It is built with the tag rdma, on Linux, with cgo; in any other build Open fails with ErrNotBuilt. libibverbs is
// opened when Open first needs it, so that one binary runs on all hosts and says "no RDMA device" where there is none.
//
// A Transport has one unreliable-datagram queue pair, whose number is the port of its Endpoint. The arena is registered
// once, as one memory region. Receive buffers lie in a shared receive queue: the device writes a 40-byte header (the
// GRH) in front of each payload, into the headroom, so that the payload stands where it does on every other transport.
// Channel n is the group 239.0.0.0 + n: the queue pair is attached to it, and an ordinary socket or the kernel's RDMA
// connection manager joins it, because only that makes kernel and network deliver it. Datagrams carry a Q_Key made from
// the group port; others are dropped by the device. Each datagram has a number in its immediate data, so that a
// receiver can count what is missing.
//
// A batch costs one call into C: it posts all work requests, of which only the last asks for a completion, and takes
// the completions that are there. Small frames are copied into their work request and go home at once. Receive polls,
// or sleeps on the completion channel's descriptor; nothing is allocated.
//
// Frames above the MTU, where Config.Large allows them, go to one process by a rail: a reliable queue pair that the
// first of them has made, and that is made anew after it broke. They lie in the arena's large pools and come by a
// shared receive queue of their own. A goroutine of the transport, its keeper, makes and ends rails.
//
// A Transport also writes into the memory of other processes: see dataplane.OneSided. Each Remote has a reliable
// queue pair of its own, made by an exchange over TCP on the device's address.
//
// A queue pair that fails is repaired, under its old number, when its work requests have been flushed.
package rdma
