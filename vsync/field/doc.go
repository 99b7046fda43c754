// Package field lets real systems over real transports live through what the simulator's worlds live through, and has
// them judged by the same checkers: hosts that are network namespaces, random traffic in every flavour, members that
// are killed and replaced, hosts that are cut off, and loss. It consists of tests.
package field
