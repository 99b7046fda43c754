// Package tune judges whether a computer is set up for Khamsin: it compares what hostview shows with what the library
// needs, and says for every setting what was found, what is wanted, why, how much it matters and what mends it.
//
// The rules are functions of a host's files and answers alone: they change nothing, keep nothing, read no clock and
// guess nothing. What cannot be read is a finding of severity Unknown with the reason. Package apply carries fixes out,
// package probe measures instead of judging. The sizes follow the manual's chapter on performance: socket buffers of 64
// and 32 times ISIS_MAXMSGLEN, and a packet that fits the network's MTU.
package tune
