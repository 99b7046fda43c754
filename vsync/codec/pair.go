package codec

import (
	"reflect"
	"strings"
)

// Pair is a key with its value. Pairs and slices of pairs travel without registration, if the key and the value can.
type Pair[K, V any] struct {
	Key   K
	Value V
}

// immutable: a name
var pairPackage = reflect.TypeFor[Pair[int, int]]().PkgPath()

// isPair tells whether a type is an instance of Pair.
func isPair(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.PkgPath() == pairPackage && strings.HasPrefix(t.Name(), "Pair[")
}
