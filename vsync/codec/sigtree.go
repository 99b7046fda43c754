package codec

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SignatureMax is the greatest length of a signature's text in bytes.
const SignatureMax = 1 << 16

// ParseSignature makes a signature from a text that came from another process. The error wraps ErrSignature.
func ParseSignature(text string) (Signature, error) {
	if _, err := parseSignature(text); err != nil {
		return Signature{}, err
	}
	return sign(text), nil
}

// Diff names the first difference between two signatures, seen from the first; "" if there is none.
// An example: "argument 1: Order#5.Lines[].Price: float64 against float32".
func Diff(a, b Signature) string {
	if a.Text == b.Text {
		return ""
	}
	x, err := parseSignature(a.Text)
	if err != nil {
		return "the first signature is malformed: " + err.Error()
	}
	y, err := parseSignature(b.Text)
	if err != nil {
		return "the second signature is malformed: " + err.Error()
	}
	for i := range min(len(x), len(y)) {
		path, what := x[i].diff(&y[i])
		switch {
		case what == "":
		case path == "":
			return fmt.Sprintf("argument %d: %s", i, what)
		default:
			return fmt.Sprintf("argument %d: %s%s: %s", i, x[i].root(), path, what)
		}
	}
	return fmt.Sprintf("%d arguments against %d", len(x), len(y))
}

// sigType is a type as a signature's text has it.
type sigType struct {
	head  string    // "int32", "[]", "[4]", "*", "pair", "Order#5"
	body  string    // of registered types: what is in the braces, "" for a struct or where there are none
	names []string  // of the fields
	parts []sigType // elements, key and value, fields
}

// text returns the type in short.
func (s *sigType) text() string {
	switch {
	case s.head == "pair":
		return "pair<" + s.parts[0].text() + "," + s.parts[1].text() + ">"
	case strings.HasSuffix(s.head, "]") || s.head == "*":
		return s.head + s.parts[0].text()
	}
	return s.head
}

// step is how a path goes on from s to its part i.
func (s *sigType) step(i int) string {
	switch {
	case s.head == "pair":
		return [2]string{".Key", ".Value"}[i]
	case strings.HasSuffix(s.head, "]"):
		return "[]"
	case s.head == "*" || s.body != "":
		return ""
	}
	return "." + s.names[i]
}

// root is what stands in front of a path that begins at s: the name of the struct, if it is one.
func (s *sigType) root() string {
	for s.head == "*" || s.body == "=" {
		s = &s.parts[0]
	}
	if len(s.names) > 0 {
		return s.head
	}
	return ""
}

// diff returns the path to the first difference and what it is, "" if there is none.
func (s *sigType) diff(o *sigType) (path, what string) {
	if s.head != o.head {
		return "", s.text() + " against " + o.text()
	}
	if s.body != o.body {
		return "", fmt.Sprintf("%s is %s against %s", s.head, orStruct(s.body), orStruct(o.body))
	}
	for i := range min(len(s.parts), len(o.parts)) {
		if len(s.names) > 0 && s.names[i] != o.names[i] {
			return "", fmt.Sprintf("field %d of %s is %s against %s", i, s.head, s.names[i], o.names[i])
		}
		if path, what = s.parts[i].diff(&o.parts[i]); what != "" {
			return s.step(i) + path, what
		}
	}
	if len(s.parts) != len(o.parts) {
		return "", fmt.Sprintf("%s has %d fields against %d", s.head, len(s.parts), len(o.parts))
	}
	return "", ""
}

func orStruct(body string) string {
	if body == "" {
		return "a struct"
	}
	return "{" + body + "}"
}

// sigParser reads the text of a signature from the left. After a fault the rest is empty.
type sigParser struct {
	rest  string
	depth int
	bad   bool
}

func parseSignature(text string) ([]sigType, error) {
	p := &sigParser{rest: text}
	if len(text) > SignatureMax {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrSignature, SignatureMax)
	}
	p.expect("(")
	var list []sigType
	for !p.take(")") && !p.bad {
		if len(list) > 0 {
			p.expect(",")
		}
		list = append(list, p.typ())
	}
	if p.bad || p.rest != "" {
		return nil, fmt.Errorf("%w: %.40q", ErrSignature, text)
	}
	return list, nil
}

func (p *sigParser) fail() { p.rest, p.bad = "", true }

func (p *sigParser) take(token string) bool {
	rest, ok := strings.CutPrefix(p.rest, token)
	p.rest = rest
	return ok
}

func (p *sigParser) expect(token string) {
	if !p.take(token) {
		p.fail()
	}
}

// word takes letters, digits and underscores.
func (p *sigParser) word() string {
	end := strings.IndexFunc(p.rest, func(r rune) bool {
		return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) || r == utf8.RuneError
	})
	if end < 0 {
		end = len(p.rest)
	}
	w := p.rest[:end]
	p.rest = p.rest[end:]
	if w == "" {
		p.fail()
	}
	return w
}

// number takes digits without leading zeros, up to max.
func (p *sigParser) number(max int) string {
	w := p.word()
	v, err := strconv.Atoi(w)
	if err != nil || v < 0 || v > max || strconv.Itoa(v) != w {
		p.fail()
	}
	return w
}

func (p *sigParser) typ() sigType {
	if p.depth++; p.depth > MaxDepth {
		p.fail()
	}
	defer func() { p.depth-- }()
	switch {
	case p.bad:
		return sigType{}
	case p.take("[]"):
		return sigType{head: "[]", parts: []sigType{p.typ()}}
	case p.take("["):
		n := p.number(arrayMax)
		p.expect("]")
		return sigType{head: "[" + n + "]", parts: []sigType{p.typ()}}
	case p.take("*"):
		return sigType{head: "*", parts: []sigType{p.typ()}}
	case p.take("pair<"):
		key := p.typ()
		p.expect(",")
		value := p.typ()
		p.expect(">")
		return sigType{head: "pair", parts: []sigType{key, value}}
	}
	s := sigType{head: p.word()}
	if p.take("#") {
		s.head += "#" + p.number(1<<16-1)
		if p.take("{") {
			p.body(&s)
		}
	}
	return s
}

// body reads what is in the braces of a registered type.
func (p *sigParser) body(s *sigType) {
	for _, fixed := range []string{"custom", "library"} {
		if p.take(fixed + "}") {
			s.body = fixed
			return
		}
	}
	if p.take("=") {
		s.body = "="
		s.parts = []sigType{p.typ()}
		p.expect("}")
		return
	}
	for !p.take("}") && !p.bad {
		if len(s.parts) > 0 {
			p.expect(";")
		}
		s.names = append(s.names, p.word())
		p.expect(" ")
		s.parts = append(s.parts, p.typ())
	}
}
