// Package probe measures what a path between two processes can carry: goodput, loss and latency against packet size,
// batch, window, socket buffer and waiting strategy, one after the other, each from where the one before was best. It
// finds the knee of every curve, and writes a configuration that vsync loads.
//
// It sends through transports/udp, as the library does, with a bound on what is under way, as the library has one. One
// process asks (Run), the other answers (Answer); on a loopback Run starts the answering side itself. An answering
// process sends only to who asked, and no more than it was sent. Nothing runs longer than the configuration says.
//
// The figures hold for the moment and the machine; noise of tens of percent is usual on a shared one.
package probe
