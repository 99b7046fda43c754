package tcp

// Refused counts connections that were cut off, by reason.
type Refused struct {
	NoHello  uint64 // did not introduce itself, or not in time
	Imposter uint64 // claimed the address of another host
	Length   uint64 // sent a length that no packet has
	Broken   uint64 // ended in the middle of a packet, or with an error
}
