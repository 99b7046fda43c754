package probe

import (
	"encoding/binary"
	"hash/crc32"
)

// kind says what a packet of the probe is.
type kind uint8

const (
	kindSetup kind = iota + 1 // asks for settings of the answering side
	kindReady                 // they are in force
	kindData                  // counted
	kindAck                   // how many were counted
	kindPing                  // to be answered at once
	kindPong                  // the answer
)

// headerLen is the length of a message; data packets are filled up behind it.
//
//	0       4     8     12   13      16        24      32       40        44
//	| magic | crc | run | kind | wait | buffer… | seq   | stamp | count   |
const headerLen = 48

const magic = 0x4b50524f // "KPRO"

// message is the head of every packet.
type message struct {
	kind   kind
	wait   uint8  // of a setup: index of a strategy
	run    uint32 // number of the measurement, drawn at random for each
	seq    uint64 // of data and pings; of an ack, the highest that came
	stamp  int64  // of pings: the asker's clock, returned as it was
	count  uint64 // of an ack: packets that came; of a setup: bytes of the receive buffer
	batch  uint32 // of a setup
	detail uint32 // of a ready: bytes of the buffer that were granted, in KiB
}

// encode writes the message to the front of b.
func (m *message) encode(b []byte) {
	_ = b[headerLen-1]
	binary.BigEndian.PutUint32(b[0:], magic)
	binary.BigEndian.PutUint32(b[8:], m.run)
	b[12], b[13], b[14], b[15] = byte(m.kind), m.wait, 0, 0
	binary.BigEndian.PutUint64(b[16:], m.seq)
	binary.BigEndian.PutUint64(b[24:], uint64(m.stamp))
	binary.BigEndian.PutUint64(b[32:], m.count)
	binary.BigEndian.PutUint32(b[40:], m.batch)
	binary.BigEndian.PutUint32(b[44:], m.detail)
	binary.BigEndian.PutUint32(b[4:], crc32.ChecksumIEEE(b[8:headerLen]))
}

// decode reads a message from the front of b. False means that it is none.
func (m *message) decode(b []byte) bool {
	if len(b) < headerLen || binary.BigEndian.Uint32(b) != magic ||
		binary.BigEndian.Uint32(b[4:]) != crc32.ChecksumIEEE(b[8:headerLen]) {
		return false
	}
	*m = message{
		run: binary.BigEndian.Uint32(b[8:]), kind: kind(b[12]), wait: b[13], seq: binary.BigEndian.Uint64(b[16:]),
		stamp: int64(binary.BigEndian.Uint64(b[24:])), count: binary.BigEndian.Uint64(b[32:]),
		batch: binary.BigEndian.Uint32(b[40:]), detail: binary.BigEndian.Uint32(b[44:]),
	}
	return m.kind >= kindSetup && m.kind <= kindPong && m.wait < strategyCount
}
