package bpf

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// defines returns the numbers that a C file defines.
func defines(t *testing.T, name string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(name)
	must(t, err)
	all := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^#define (\w+) (\d+|'.')`).FindAllStringSubmatch(string(text), -1) {
		if m[2][0] == '\'' {
			all[m[1]] = int(m[2][1])
			continue
		}
		n, err := strconv.Atoi(m[2])
		must(t, err)
		all[m[1]] = n
	}
	return all
}

// The header of the C programs says the same as the Go packages.
func TestLayoutAgrees(t *testing.T) {
	h := wire.Header{Kind: wire.KindData, Group: 0x01020304}
	packet := make([]byte, wire.HeaderLen)
	h.Encode(packet)
	if got := binary.LittleEndian.Uint32(packet[wire.GroupOffset:]); got != h.Group {
		t.Errorf("the group in a packet reads %#x", got)
	}
	got := defines(t, "src/layout.h")
	for name, want := range map[string]int{
		"PACKET_MAGIC": int(packet[0]), "PACKET_VERSION": wire.Version, "PACKET_HEADER": wire.HeaderLen,
		"PACKET_CRC": wire.CRCOffset, "PACKET_GROUP": wire.GroupOffset,
		"SLOTS": SlotsMax, "QUEUES": QueuesMax, "RULES": RulesMax, "VERSION": layoutVersion,
		"RULE_BY_GROUP": ruleByGroup, "RULE_DROP_UNJOINED": ruleDropUnjoined, "SLOT_VERIFY": slotVerify,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %d in src/layout.h (there: %v), and %d in Go", name, v, ok, want)
		}
	}
	if packet[1] != wire.Version {
		t.Error("the version is not the second byte of a packet")
	}
}

// The table of the checksum is the standard library's.
func TestChecksumTable(t *testing.T) {
	text, err := os.ReadFile("src/crc32c.h")
	must(t, err)
	numbers := regexp.MustCompile(`0x[0-9a-f]{8}`).FindAllString(string(text), -1)
	table := crc32.MakeTable(crc32.Castagnoli)
	if len(numbers) != len(table) {
		t.Fatalf("%d numbers in the table", len(numbers))
	}
	for i, s := range numbers {
		if n, err := strconv.ParseUint(s[2:], 16, 32); err != nil || uint32(n) != table[i] {
			t.Errorf("entry %d is %s, want %#08x", i, s, table[i])
		}
	}
}
