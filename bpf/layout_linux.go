package bpf

// What src/layout.h defines by the preprocessor, which leaves no trace in the object. layout_test.go compares.
const (
	// SlotsMax is how many transports can share an interface.
	SlotsMax = 64
	// RulesMax is how many addresses, and groups on them, all transports of an interface can listen to.
	RulesMax = 4096

	layoutVersion = 1

	ruleByGroup      = 1
	ruleDropUnjoined = 2
	slotVerify       = 1
)

// reasons are the names of the first counters, in their order.
//
// immutable: a table
var reasons = [...]string{
	demuxReasonCOUNT_OTHER:     "other",
	demuxReasonCOUNT_MALFORMED: "malformed",
	demuxReasonCOUNT_FRAGMENT:  "fragment",
	demuxReasonCOUNT_FOREIGN:   "foreign",
	demuxReasonCOUNT_STACK:     "stack",
	demuxReasonCOUNT_LONG:      "long",
	demuxReasonCOUNT_SOCKET:    "socket",
	demuxReasonCOUNT_VACANT:    "vacant",
	demuxReasonCOUNT_UNJOINED:  "unjoined",
	demuxReasonCOUNT_CHECKSUM:  "checksum",
}
