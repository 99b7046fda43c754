package codec_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

func mustSign(t testing.TB, r *codec.Registry, fn any) codec.Signature {
	t.Helper()
	s, err := r.SignatureOf(fn)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSignatureDescribesTypesInDepth(t *testing.T) {
	r := newRegistry(t)
	for want, fn := range map[string]any{
		"()":                                    func() {},
		"(int32,uint8,[]uint8,[][]uint8)":       func(rune, byte, []byte, [][]byte) {},
		"(duration,[][]float64,[4]uint16)":      func(time.Duration, [][]float64, [4]uint16) {},
		"(Level#3{=int16},Level#3)":             func(Level, Level) {},
		"(Tree#4{=[]Tree#4})":                   func(Tree) {},
		"(*Link#5{Value int;Next *Link#5})":     func(*Link) {},
		"([]Point#7{custom},Door#128{library})": func([]Point, Door) {},
		"(pair<int,[]Line#2{Item string;Price float64;Count int}>,Line#2)": func(codec.Pair[int, []Line], Line) {},
		"(Order#1{ID int64;Who string;Lines []Line#2{Item string;Price float64;Count int};Parent *Order#1;" +
			"Level Level#3{=int16};Tags []pair<string,int32>})": func(Order) {},
	} {
		if s := mustSign(t, r, fn); s.Text != want || s.String() != want {
			t.Errorf("%s\n%s", s.Text, want)
		}
	}
	for _, bad := range []any{nil, 1, func(...int) {}, func(any) {}, func(First) {}, func(codec.Raw) {}} {
		if s, err := r.SignatureOf(bad); err == nil {
			t.Errorf("%T: %v", bad, s)
		}
	}
	var e *codec.EncodeError
	if _, err := r.SignatureOf(func(int, chan int) {}); !errors.As(err, &e) || e.Index != 1 {
		t.Error(err)
	}
}

func TestHashOfSignature(t *testing.T) {
	s := mustSign(t, newRegistry(t), func(Order, int) {})
	sum := sha256.Sum256([]byte(s.Text))
	if s.Hash != binary.LittleEndian.Uint64(sum[:]) {
		t.Fatal("the hash is not that of the text")
	}
	parsed, err := codec.ParseSignature(s.Text)
	if err != nil || parsed != s {
		t.Fatal(parsed, err)
	}
}

// Another process that registers the types in another order has the same signature.
func TestSignatureIsTheSameInAnotherProcess(t *testing.T) {
	const env = "CODEC_TEST_SIGNATURE"
	if os.Getenv(env) != "" {
		r := codec.NewRegistry()
		err := errors.Join(codec.Register[Level](r, 3), codec.Register[Line](r, 2), codec.Register[Order](r, 1))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("<" + mustSign(t, r, func(Order, []Line) {}).Text + ">")
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestSignatureIsTheSameInAnotherProcess$")
	cmd.Env = append(os.Environ(), env+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := mustSign(t, newRegistry(t), func(Order, []Line) {})
	if !strings.Contains(string(out), "<"+want.Text+">") {
		t.Fatalf("%s\n%s", out, want.Text)
	}
}

// define registers T with an id and signs a handler that takes it.
func define[T any](t *testing.T, id uint16) codec.Signature {
	t.Helper()
	r := codec.NewRegistry()
	if err := errors.Join(codec.Register[T](r, id), codec.Register[First](r, 50)); err != nil {
		t.Fatal(err)
	}
	return mustSign(t, r, func(int, T) {})
}

// The same name is not enough: fields, their names, types and order, and ids count, however deep. The difference is
// named.
func TestDiffNamesTheFirstDifference(t *testing.T) {
	type Foo struct {
		A int
		B float64
	}
	ours := define[Foo](t, 5)
	check := func(theirs codec.Signature, want string) {
		t.Helper()
		if got := codec.Diff(ours, theirs); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
		if ours == theirs || ours.Hash == theirs.Hash {
			t.Error("the signatures are equal")
		}
		if back := codec.Diff(theirs, ours); back == "" || back == want {
			t.Errorf("from the other side: %q", back)
		}
	}
	if got := codec.Diff(ours, define[Foo](t, 5)); got != "" {
		t.Error(got)
	}
	check(define[Foo](t, 6), "argument 1: Foo#5 against Foo#6")
	check(fooOtherType(t), "argument 1: Foo#5.B: float64 against First#50")
	check(fooOtherName(t), "argument 1: field 1 of Foo#5 is B against C")
	check(fooMore(t), "argument 1: Foo#5 has 2 fields against 3")
	check(fooSwapped(t), "argument 1: field 0 of Foo#5 is A against B")
	check(fooNamed(t), "argument 1: Foo#5 is a struct against {=}")
	check(mustSign(t, newRegistry(t), func(int) {}), "2 arguments against 1")
	check(mustSign(t, newRegistry(t), func(string, int) {}), "argument 0: int against string")
}

func fooOtherType(t *testing.T) codec.Signature {
	type Foo struct {
		A int
		B First
	}
	return define[Foo](t, 5)
}

func fooOtherName(t *testing.T) codec.Signature {
	type Foo struct {
		A int
		C float64
	}
	return define[Foo](t, 5)
}

func fooMore(t *testing.T) codec.Signature {
	type Foo struct {
		A int
		B float64
		C byte
	}
	return define[Foo](t, 5)
}

func fooSwapped(t *testing.T) codec.Signature {
	type Foo struct {
		B float64
		A int
	}
	return define[Foo](t, 5)
}

func fooNamed(t *testing.T) codec.Signature {
	type Foo []byte
	return define[Foo](t, 5)
}

func TestDiffGoesDeep(t *testing.T) {
	sign := func(text string) codec.Signature {
		s, err := codec.ParseSignature(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct{ a, b, want string }{
		{"(O#1{L []L#2{P float64}})", "(O#1{L []L#2{P float32}})", "argument 0: O#1.L[].P: float64 against float32"},
		{"(pair<int,*O#1{A [3]int}>)", "(pair<int,*O#1{A [4]int}>)", "argument 0: .Value.A: [3]int against [4]int"},
		{"(L#1{=int16})", "(L#1{=int32})", "argument 0: int16 against int32"},
		{"(L#1{custom})", "(L#1{library})", "argument 0: L#1 is {custom} against {library}"},
		{"([]pair<int,int>)", "([]pair<int,[]int>)", "argument 0: [].Value: int against []int"},
	} {
		if got := codec.Diff(sign(c.a), sign(c.b)); got != c.want {
			t.Errorf("%s, %s: %q, expected %q", c.a, c.b, got, c.want)
		}
	}
	for _, bad := range []string{"", "(", "()x", "(int", "(int;int)", "(,)", "(#1)", "(A#01)", "(A#70000)", "(A#1{)",
		"(A#1{a})", "(A#1{a int,b int})", "([x]int)", "(pair<int>)", "(A#1{=})", "(\xff)",
		"(" + strings.Repeat("*", 1000) + "int)",
		"(" + strings.Repeat("a", codec.SignatureMax) + ")"} {
		if _, err := codec.ParseSignature(bad); !errors.Is(err, codec.ErrSignature) {
			t.Errorf("%.40q: %v", bad, err)
		}
		if d := codec.Diff(codec.Signature{Text: bad}, codec.Signature{Text: "(int)"}); d == "" {
			t.Errorf("%.40q does not differ from (int)", bad)
		}
	}
}

// The order of types does count, the way to say it does not.
func TestSignatureOfTypes(t *testing.T) {
	r := newRegistry(t)
	a, err := r.SignatureOfTypes(reflect.TypeFor[Order](), reflect.TypeFor[int]())
	if err != nil || a != mustSign(t, r, func(Order, int) {}) || a == mustSign(t, r, func(int, Order) {}) {
		t.Fatal(a, err)
	}
}
