package vsync

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/vsync/codec"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// SignatureError means that this process has other handlers than the members of the group that it wanted to join, or
// the same ones for types of other fields.
type SignatureError struct {
	Code   Code   // the first one that differs
	Ours   string // the types that this process handles under it, "" if none
	Theirs string // the types that the members handle under it, "" if none
	Diff   string // what is different, for people
}

// Error says what is different.
func (e *SignatureError) Error() string {
	return fmt.Sprintf("%v: code %d: %s", ErrSignature, e.Code, e.Diff)
}

// Is makes errors.Is(err, ErrSignature) true.
func (e *SignatureError) Is(target error) bool { return target == ErrSignature }

// signed is one handler in a group's table: its code and its types.
type signed struct {
	code Code
	text string // codec.Signature's, anySignature, or a hash
}

// anySignature stands for a handler that takes every message.
const anySignature = "(...)"

// describe returns the group's handlers, one line each, in the order of codes and types: what members compare. Handlers
// of equal types count once. A table that would be too long to travel has hashes instead of types.
func (g *Group) describe() string {
	var list []signed
	for code, handlers := range g.handlers {
		for _, h := range handlers {
			text := h.sig.Text
			if h.any {
				text = anySignature
			}
			list = append(list, signed{code, text})
		}
	}
	for _, s := range g.services {
		list = append(list, signed{s.Code, "service " + s.Name})
	}
	slices.SortFunc(list, func(a, b signed) int {
		return cmp.Or(cmp.Compare(a.code, b.code), strings.Compare(a.text, b.text))
	})
	list = slices.Compact(list)
	text := join(list)
	if len(text) > engine.HandlersMax {
		for i := range list {
			list[i].text = hashed(list[i].text)
		}
		text = join(list)
	}
	return text
}

func join(list []signed) string {
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%d %s\n", s.code, s.text)
	}
	return b.String()
}

// hashed returns the hash that stands for a long text. It is no signature itself.
func hashed(text string) string {
	if strings.HasPrefix(text, "#") {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return "#" + hex.EncodeToString(sum[:8])
}

// signatureOf returns the number by which tables are compared.
func signatureOf(table string) uint64 {
	sum := sha256.Sum256([]byte(table))
	return binary.LittleEndian.Uint64(sum[:])
}

// parseTable reads a table that came from another process. Lines that are none are left out.
func parseTable(text string) []signed {
	var list []signed
	for line := range strings.Lines(text) {
		code, types, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.ParseInt(code, 10, 32)
		if ok && err == nil {
			list = append(list, signed{Code(n), types})
		}
	}
	return list
}

// explain makes a refusal for other handlers name the first one that differs.
func (g *Group) explain(err error) error {
	var refused *engine.SignatureError
	if !errors.As(err, &refused) {
		return err
	}
	mine, err2 := g.keyLine()
	if their, _, _ := strings.Cut(refused.Handlers, "\n"); err2 == nil && mine != keyLineOf(their) {
		return fmt.Errorf("%w: the members have another one, or none, or this process has", ErrGroupKey)
	}
	ours, theirs := byCode(parseTable(g.describe())), byCode(parseTable(refused.Handlers))
	codes := make([]Code, 0, len(ours)+len(theirs))
	for c := range ours {
		codes = append(codes, c)
	}
	for c := range theirs {
		codes = append(codes, c)
	}
	slices.Sort(codes)
	for _, c := range codes {
		if d := differ(ours[c], theirs[c]); d != "" {
			return &SignatureError{
				Code: c, Ours: strings.Join(ours[c], " "), Theirs: strings.Join(theirs[c], " "), Diff: d,
			}
		}
	}
	return err
}

// keyLineOf returns a table's first line when it is about a key, else nothing.
func keyLineOf(line string) string {
	if strings.HasPrefix(line, keyCode) {
		return line + "\n"
	}
	return ""
}

// byCode gathers the types under each code.
func byCode(list []signed) map[Code][]string {
	m := make(map[Code][]string)
	for _, s := range list {
		m[s.code] = append(m[s.code], s.text)
	}
	return m
}

// differ says how the handlers of one code differ, "" if they do not.
func differ(ours, theirs []string) string {
	extra, missing := lacks(ours, theirs), lacks(theirs, ours)
	switch {
	case len(extra) == 0 && len(missing) == 0:
		return ""
	case len(missing) == 0:
		return "the members have no handler for " + strings.Join(extra, " and ")
	case len(extra) == 0:
		return "this process has no handler for " + strings.Join(missing, " and ")
	}
	text := fmt.Sprintf("this process handles %s, the members %s", strings.Join(extra, " and "),
		strings.Join(missing, " and "))
	a, errA := codec.ParseSignature(extra[0])
	b, errB := codec.ParseSignature(missing[0])
	if len(extra) == 1 && len(missing) == 1 && errA == nil && errB == nil {
		text += ": " + codec.Diff(a, b)
	}
	return text
}

// lacks returns what is in a and not in b, hashes and the texts that they stand for being the same.
func lacks(a, b []string) []string {
	var list []string
	for _, x := range a {
		if !slices.ContainsFunc(b, func(y string) bool { return x == y || hashed(x) == hashed(y) }) {
			list = append(list, x)
		}
	}
	return list
}
