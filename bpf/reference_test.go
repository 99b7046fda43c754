package bpf

import "encoding/binary"

// verdict is what the demultiplexer is to do with a frame, and why.
type verdict struct {
	action uint32 // XDP_PASS or XDP_DROP
	reason demuxReason
	rule   *demuxRuleKey // whose counter moves; nil for none
}

// The kernel's XDP actions.
const (
	xdpDrop = 1
	xdpPass = 2
)

// reference decides as src/demux.c must, in another language and another order. There are no sockets in the map.
type reference struct {
	rules map[demuxRuleKey]demuxRule
	slots map[uint32]demuxSlot
}

// datagram is a UDP datagram in a frame.
type datagram struct {
	key       demuxRuleKey
	multicast bool
	payload   []byte
}

func (ref *reference) judge(frame []byte) verdict {
	d, reason, ok := dissect(frame)
	if !ok {
		return verdict{action: xdpPass, reason: reason}
	}
	key := d.key
	rule, found := ref.rules[key]
	unjoined := false
	switch {
	case !found && d.multicast:
		rule, found = ref.rules[demuxRuleKey{Port: key.Port, Vlan: key.Vlan}]
		unjoined = true
	case found && rule.Flags&ruleByGroup != 0 && ours(d.payload):
		if group := binary.LittleEndian.Uint32(d.payload[12:]); group != 0 {
			key.Group = group
			if narrow, ok := ref.rules[key]; ok {
				rule = narrow
			} else {
				unjoined = true
			}
		}
	}
	switch {
	case !found, unjoined && rule.Flags&ruleDropUnjoined == 0:
		return verdict{action: xdpPass, reason: demuxReasonCOUNT_FOREIGN}
	case unjoined:
		return verdict{action: xdpDrop, reason: demuxReasonCOUNT_UNJOINED}
	}
	v := verdict{action: xdpPass, rule: &key}
	slot := ref.slots[rule.Slot]
	switch {
	case rule.Action == uint32(demuxActionACTION_DROP):
		v.action, v.reason = xdpDrop, demuxReasonCOUNT_UNJOINED
	case rule.Action == uint32(demuxActionACTION_STACK):
		v.reason = demuxReasonCOUNT_STACK
	case len(frame) > int(slot.Limit):
		v.reason = demuxReasonCOUNT_LONG
	case slot.Flags&slotVerify != 0 && ours(d.payload) && len(d.payload) <= 4096 && !sound(d.payload):
		v.action, v.reason = xdpDrop, demuxReasonCOUNT_CHECKSUM
	default:
		v.reason = demuxReasonCOUNT_VACANT
	}
	return v
}

// dissect finds the UDP datagram in a frame, or why it is none.
func dissect(frame []byte) (d datagram, reason demuxReason, ok bool) {
	if len(frame) < 14 {
		return d, demuxReasonCOUNT_MALFORMED, false
	}
	kind, rest := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	if isTag(kind) {
		if len(rest) < 4 {
			return d, demuxReasonCOUNT_MALFORMED, false
		}
		d.key.Vlan = binary.BigEndian.Uint16(rest) & 0xfff
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
		if isTag(kind) && len(rest) < 4 {
			return d, demuxReasonCOUNT_MALFORMED, false
		}
	}
	var inside []byte
	switch kind {
	case 0x0800:
		inside, reason, ok = dissect4(rest, &d)
	case 0x86dd:
		inside, reason, ok = dissect6(rest, &d)
	default:
		return d, demuxReasonCOUNT_OTHER, false
	}
	if !ok {
		return d, reason, false
	}
	if len(inside) < 8 {
		return d, demuxReasonCOUNT_MALFORMED, false
	}
	size := int(binary.BigEndian.Uint16(inside[4:]))
	if size < 8 || size > len(inside) {
		return d, demuxReasonCOUNT_MALFORMED, false
	}
	d.key.Port = binary.NativeEndian.Uint16(inside[2:])
	d.payload = inside[8:size]
	return d, 0, true
}

func isTag(kind uint16) bool { return kind == 0x8100 || kind == 0x88a8 }

// dissect4 returns the payload of an IPv4 packet.
func dissect4(b []byte, d *datagram) ([]byte, demuxReason, bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return nil, demuxReasonCOUNT_MALFORMED, false
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case header < 20 || total < header || total > len(b):
		return nil, demuxReasonCOUNT_MALFORMED, false
	case b[9] != 17:
		return nil, demuxReasonCOUNT_OTHER, false
	case binary.BigEndian.Uint16(b[6:])&0x3fff != 0:
		return nil, demuxReasonCOUNT_FRAGMENT, false
	}
	d.key.Addr = [16]byte{10: 0xff, 11: 0xff, 12: b[16], 13: b[17], 14: b[18], 15: b[19]}
	d.multicast = b[16]>>4 == 14
	return b[header:total], 0, true
}

// dissect6 returns the payload of an IPv6 packet.
func dissect6(b []byte, d *datagram) ([]byte, demuxReason, bool) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return nil, demuxReasonCOUNT_MALFORMED, false
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	switch {
	case 40+size > len(b):
		return nil, demuxReasonCOUNT_MALFORMED, false
	case b[6] == 44:
		return nil, demuxReasonCOUNT_FRAGMENT, false
	case b[6] != 17:
		return nil, demuxReasonCOUNT_OTHER, false
	}
	d.key.Addr = [16]byte(b[24:40])
	d.multicast = b[24] == 0xff
	return b[40 : 40+size], 0, true
}

// ours tells whether a payload begins with a header of Khamsin's.
func ours(payload []byte) bool { return len(payload) >= 40 && payload[0] == 'K' && payload[1] == 1 }
