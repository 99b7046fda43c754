// Package baseline holds nothing but tests: they run github.com/asavie/xdp, another implementation of AF_XDP sockets,
// beside the transport of package xdp, so that the decision to write our own stays checkable
// (docs/decisions/0004-own-af-xdp.md). Nothing that is shipped imports it.
package baseline
