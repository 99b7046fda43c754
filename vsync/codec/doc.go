// Package codec turns lists of Go values into self-describing bytes and back: the arguments of multicasts and replies.
//
// A body is a sequence of values, nothing before, between or behind them, so that two bodies one after the other are
// the body of all their values:
//
//	+--------------------+-----------------+--------------------+-----------------+----
//	| type of value 0    | payload         | type of value 1    | payload         | ...
//	| 1 to 64 bytes      | 1 byte or more  |                    |                 |
//	+--------------------+-----------------+--------------------+-----------------+----
//
// The type says how the payload is laid out, so a decoder needs no outside schema for the built-in types. Types of the
// application are known by a small number, their id, and both sides need a [Registry] in which it is registered; a
// print of the fields travels with the id, so that two different definitions under one id are an error and never
// garbage. Numbers are little-endian whatever the machine. Every value has exactly one encoding, the canonical one; a
// decoder refuses all others. docs/codec.md draws the format.
//
// The package owns no goroutine and keeps no state besides the registries that its callers make. A Registry is filled
// by one or several goroutines, then frozen; everything else may be called by any number of goroutines at once.
//
// Bytes to decode are never trusted: no length is believed before the bytes behind it are seen, nesting is limited by
// MaxDepth, and memory is allocated in proportion to the input: at most 64 times its length for the built-in types and
// for registered types whose fields are all exported; the skipped fields of a registered type add their own size.
// The answer to bad input is an error, never a panic. A decoder of the application's own (Unmarshaler) must hold to the
// same by itself.
//
// What is decoded never aliases the input, except in the functions named Borrow.
//
// The manual's sections on messages, marshalling and the registration of types are the model: Msg.toBArray,
// Msg.BArrayToObjects, Msg.RegisterType, Msg.InvokeFromBArrays.
package codec
