package rdma

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// The kernel's RDMA connection manager takes commands by write on its device, each with a header: command, length of
// what follows, length of the answer. The answer goes to an address in the command. See rdma/rdma_user_cm.h; integers
// are in the machine's order, addresses as sockets have them.
const (
	ucmCreate  = 0
	ucmDestroy = 1
	ucmBind    = 2
	ucmEvent   = 12
	ucmJoin    = 16
	ucmLeave   = 17

	ucmHeaderBytes = 8
	ucmNumberBytes = 4 // of an answer that is a number
	ucmEventBytes  = 336
	ucmPortsUDP    = 0x0111

	ucmJoined     = 12 // the event; all others are failures
	ucmFamilyIPv4 = 2
)

// ucmCommand returns a command: the header, and fields that are appended as they are given.
func ucmCommand(command uint32, answer int, fields ...any) []byte {
	b := make([]byte, ucmHeaderBytes, 64)
	for _, f := range fields {
		switch f := f.(type) {
		case uint64:
			b = binary.NativeEndian.AppendUint64(b, f)
		case uint32:
			b = binary.NativeEndian.AppendUint32(b, f)
		case uint16:
			b = binary.NativeEndian.AppendUint16(b, f)
		case []byte:
			b = append(b, f...)
		}
	}
	binary.NativeEndian.PutUint32(b, command)
	binary.NativeEndian.PutUint16(b[4:], uint16(len(b)-ucmHeaderBytes))
	binary.NativeEndian.PutUint16(b[6:], uint16(answer))
	return b
}

// Commands, each with the address of its answer.

// ucmCreateCommand has a number of ours that is not zero, or else the kernel keeps all events to itself.
func ucmCreateCommand(answer uint64) []byte {
	return ucmCommand(ucmCreate, ucmNumberBytes, uint64(1), answer, uint16(ucmPortsUDP), make([]byte, 6))
}

func ucmBindCommand(id uint32, ip netip.Addr) []byte {
	return ucmCommand(ucmBind, 0, uint64(0), ucmAddress(ip), id)
}

// ucmJoinCommand joins a group, under a number of ours that its event has.
func ucmJoinCommand(answer, number uint64, id uint32, group netip.Addr) []byte {
	return ucmCommand(ucmJoin, ucmNumberBytes, answer, number, ucmAddress(group), id)
}

func ucmLeaveCommand(answer uint64, membership uint32) []byte {
	return ucmCommand(ucmLeave, ucmNumberBytes, answer, membership, uint32(0))
}

func ucmDestroyCommand(answer uint64, id uint32) []byte {
	return ucmCommand(ucmDestroy, ucmNumberBytes, answer, id, uint32(0))
}

func ucmEventCommand(answer uint64) []byte { return ucmCommand(ucmEvent, ucmEventBytes, answer) }

// ucmAddress returns an IPv4 address in the room of an IPv6 one.
func ucmAddress(ip netip.Addr) []byte {
	b := make([]byte, 28)
	binary.NativeEndian.PutUint16(b, ucmFamilyIPv4)
	v4 := ip.As4()
	copy(b[4:], v4[:])
	return b
}

// membership is what the network says of a group that was joined.
type membership struct {
	number uint64 // ours
	mgid   [16]byte
	mlid   uint16 // InfiniBand: the group's local identifier
	sl     uint8
	rate   uint8
}

var errShortEvent = errors.New("rdma: the connection manager's event is cut off") // immutable: an error

// parseJoined reads the event that says whether a group was joined.
func parseJoined(b []byte) (m membership, err error) {
	if len(b) < ucmEventBytes-12 { // older kernels leave out the end
		return membership{}, errShortEvent
	}
	m.number = binary.NativeEndian.Uint64(b)
	event, status := binary.NativeEndian.Uint32(b[12:]), int32(binary.NativeEndian.Uint32(b[16:]))
	if event != ucmJoined || status != 0 {
		return m, fmt.Errorf("rdma: the connection manager refuses a group: event %d, status %d", event, status)
	}
	m.mgid = [16]byte(b[28:44])
	m.mlid, m.sl, m.rate = binary.NativeEndian.Uint16(b[52:]), b[54], b[56]
	if m.mgid[0] != 0xff && [12]byte(m.mgid[:12]) != [12]byte{10: 0xff, 11: 0xff} {
		return m, fmt.Errorf("rdma: the connection manager joined %x, which is no group", m.mgid)
	}
	return m, nil
}
