// Package oob replicates big objects among the members of a group, out of band: beside the group's messages, so that
// those are not held up by gigabytes. Only the names of objects travel in messages.
//
// A Store belongs to a group, and all its members need one:
//
//	g := sys.NewGroup("models")
//	store, err := oob.Attach(g)
//	…
//	err = g.Join(ctx)
//
// Any member creates objects, fills them and registers them under a name. That moves no bytes: all members know then
// that the object exists, and where it is.
//
//	o, err := store.Create("weights-7", size)
//	fill(o.Bytes())
//	err = store.Register(ctx, o)
//
// Replicate says which members shall hold a copy. Those that have none get one; those that are not listed lose theirs,
// at once. It returns immediately; the Request tells when all copies are complete. Members that wait for an object call
// Fetch, others learn of arrivals by OnArrive.
//
//	r := store.Replicate("weights-7", []vsync.Address{…})
//	err = r.Wait(ctx)
//
// # What is promised
//
// Requests are carried out in one order at all members. Of several on one object the last one decides; those before it
// end with ErrSuperseded. A request that was accepted is carried out even when the process that made it dies. A holder
// that dies is no holder any more; when it was sending, another one takes over, and receivers keep what they have got.
// When no holder is left, the object is lost: requests and fetches end with ErrLost, and no part of the object is ever
// seen. Since listing only members that hold no copy would remove the last one before the new ones are complete, such a
// request is refused with ErrLastCopy: copy first, then delete.
//
// Copies have the bytes that the object had when it was registered, or when Replicate was called by a process that had
// changed its copy with Edit. They are copies, not mirrors: later changes stay where they are made. To keep copies
// equal, send the changes to the holders with OrderedSend. Bytes are bytes: nothing is converted between machines.
//
// Every chunk of 64 KiB is checked against its digest before an object counts as arrived. In a group with a key, and in
// a system with a key, all packets are sealed with AES-256-GCM.
//
// # How bytes move
//
// With multicast an object is sent once, whatever the number of receivers: from the mapped memory of the sender to the
// network and from there into the mapped memory of the receivers. What is lost is sent again, or worked out from parity
// when receivers miss different packets. The sender finds the pace of the slowest receiver. Where multicast is not
// allowed (Config.Network.UnicastOnly, TCPOnly) the targets form a chain of TCP connections, each of which passes the
// bytes on as they arrive. At most WithMaxTransfers transfers run at once in a group; others wait for their turn, and
// small objects that go the same way share one. Messages are not moved by this package, however large: their order
// would be lost.
package oob
