package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/cilium/ebpf"
)

// table is the rules of an interface as user space sees them. Its methods are called under the interface's lock.
type table struct{ maps *demuxMaps }

// keyOf returns the key of a rule. An invalid address stands for every multicast address.
func keyOf(to netip.AddrPort, vlan uint16, group uint32) demuxRuleKey {
	key := demuxRuleKey{Vlan: vlan, Group: group}
	if to.Addr().IsValid() {
		key.Addr = to.Addr().As16()
	}
	// The map holds the port as it stands in a packet.
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], to.Port())
	key.Port = binary.NativeEndian.Uint16(port[:])
	return key
}

// share is a member's part in a rule.
type share struct {
	slot      uint32
	grouped   bool // only groups that it admitted
	exclusive bool // nobody else on the host listens
}

// join makes a member listen. Joining twice changes what it said about itself.
func (t table) join(key demuxRuleKey, s share) error {
	var r demuxRule
	err := t.maps.Rules.Lookup(&key, &r)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		if r.Counter, err = t.takeCounter(); err != nil {
			return err
		}
	} else if err != nil {
		return fmt.Errorf("look up rule: %w", err)
	}
	bit := uint64(1) << s.slot
	r.Members |= bit
	r.Grouped, r.Exclusive = withBit(r.Grouped, bit, s.grouped), withBit(r.Exclusive, bit, s.exclusive)
	r.settle()
	if err := t.maps.Rules.Put(&key, &r); err != nil {
		return errors.Join(fmt.Errorf("put rule: %w", err), t.freeCounterUnless(&key, r.Counter))
	}
	return nil
}

// freeCounterUnless gives a counter back when the rule that it was taken for does not exist.
func (t table) freeCounterUnless(key *demuxRuleKey, counter uint32) error {
	var r demuxRule
	if err := t.maps.Rules.Lookup(key, &r); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return t.freeCounter(counter)
}

// leave makes members listen no more.
func (t table) leave(key demuxRuleKey, gone uint64) error {
	var r demuxRule
	if err := t.maps.Rules.Lookup(&key, &r); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look up rule: %w", err)
	}
	r.Members, r.Grouped, r.Exclusive = r.Members&^gone, r.Grouped&^gone, r.Exclusive&^gone
	if r.Members == 0 {
		if err := t.maps.Rules.Delete(&key); err != nil {
			return fmt.Errorf("delete rule: %w", err)
		}
		return t.freeCounter(r.Counter)
	}
	r.settle()
	if err := t.maps.Rules.Put(&key, &r); err != nil {
		return fmt.Errorf("put rule: %w", err)
	}
	return nil
}

// forget removes members from everything.
func (t table) forget(gone uint64) error {
	var keys []demuxRuleKey
	var key demuxRuleKey
	var r demuxRule
	for it := t.maps.Rules.Iterate(); ; {
		if !it.Next(&key, &r) {
			if err := it.Err(); err != nil {
				return fmt.Errorf("list rules: %w", err)
			}
			break
		}
		if r.Members&gone != 0 {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if err := t.leave(key, gone); err != nil {
			return err
		}
	}
	d, err := t.directory()
	if err != nil {
		return err
	}
	d.Members &^= gone
	return t.setDirectory(d)
}

// settle derives from the members what the program does.
func (r *demuxRule) settle() {
	r.Action, r.Slot, r.Flags = uint32(demuxActionACTION_STACK), 0, 0
	if bits.OnesCount64(r.Members) == 1 {
		r.Action, r.Slot = uint32(demuxActionACTION_SOCKET), uint32(bits.TrailingZeros64(r.Members))
	}
	if r.Grouped == r.Members {
		r.Flags |= ruleByGroup
	}
	if r.Exclusive == r.Members {
		r.Flags |= ruleDropUnjoined
	}
}

func withBit(mask, bit uint64, on bool) uint64 {
	if on {
		return mask | bit
	}
	return mask &^ bit
}

func (t table) directory() (d demuxDirectory, err error) {
	if err := t.maps.Directory.Lookup(uint32(0), &d); err != nil {
		return d, fmt.Errorf("read directory: %w", err)
	}
	return d, nil
}

func (t table) setDirectory(d demuxDirectory) error {
	if err := t.maps.Directory.Put(uint32(0), &d); err != nil {
		return fmt.Errorf("write directory: %w", err)
	}
	return nil
}

// takeCounter returns the index of a counter that stands at zero.
func (t table) takeCounter() (uint32, error) {
	d, err := t.directory()
	if err != nil {
		return 0, err
	}
	for i, word := range d.Counters {
		if word == ^uint64(0) {
			continue
		}
		free := bits.TrailingZeros64(^word)
		d.Counters[i] |= 1 << free
		if err := t.setDirectory(d); err != nil {
			return 0, err
		}
		index := uint32(demuxReasonREASONS) + uint32(i*64+free)
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return 0, err
		}
		return index, t.maps.Counters.Put(index, make([]demuxCounter, cpus))
	}
	return 0, ErrRules
}

func (t table) freeCounter(index uint32) error {
	d, err := t.directory()
	if err != nil {
		return err
	}
	i := index - uint32(demuxReasonREASONS)
	d.Counters[i/64] &^= 1 << (i % 64)
	return t.setDirectory(d)
}

// read returns a counter, summed over the processors.
func (t table) read(index uint32) (Counter, error) {
	var each []demuxCounter
	if err := t.maps.Counters.Lookup(index, &each); err != nil {
		return Counter{}, fmt.Errorf("read counter %d: %w", index, err)
	}
	var sum Counter
	for _, c := range each {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
	}
	return sum, nil
}
