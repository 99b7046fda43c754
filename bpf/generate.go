package bpf

// The compiler is named by its version, since another one makes another object.
//
//go:generate go tool bpf2go -cc clang-14 -go-package bpf -tags linux -cflags "-O2 -g -Wall -Werror" -type action -type reason demux src/demux.c -- -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -cc clang-14 -go-package bpf -tags linux -cflags "-O2 -g -Wall -Werror" filter src/filter.c -- -I/usr/include/x86_64-linux-gnu
