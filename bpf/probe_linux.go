package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// capability is a privilege by its number.
type capability struct {
	number int
	name   string
}

// What loading, attaching and AF_XDP sockets take. Without CAP_PERFMON the verifier allows no arithmetic with packets.
//
// immutable: a table
var capabilities = []capability{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}, {unix.CAP_BPF, "CAP_BPF"},
	{unix.CAP_PERFMON, "CAP_PERFMON"},
}

// missingCapabilities returns the names of those that the calling thread has not in effect.
func missingCapabilities() []string {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil
	}
	has := func(n int) bool { return data[n/32].Effective&(1<<(n%32)) != 0 }
	var missing []string
	for _, c := range capabilities {
		admin := c.number == unix.CAP_BPF || c.number == unix.CAP_PERFMON // which CAP_SYS_ADMIN contains
		if !has(c.number) && !(admin && has(unix.CAP_SYS_ADMIN)) {
			missing = append(missing, c.name)
		}
	}
	return missing
}

// ProbeDemux tells whether the demultiplexer and AF_XDP sockets can work here: nil, or a *MissingError for each thing
// that is missing. Whether an interface takes them shows when it is tried.
func ProbeDemux() error {
	var faults []error
	if missing := missingCapabilities(); len(missing) > 0 {
		faults = append(faults, lacks("use XDP", missing, nil))
	}
	return errors.Join(append(faults,
		probe("programs of type XDP (Linux 4.8)", features.HaveProgramType(ebpf.XDP)),
		probe("maps of AF_XDP sockets (Linux 4.18)", features.HaveMapType(ebpf.XSKMap)),
		probe("XDP programs for frames in several buffers (Linux 5.18)",
			features.HaveProgramHelper(ebpf.XDP, asm.FnXdpGetBuffLen)),
	)...)
}

// ProbeFilter tells whether the socket filter can work here: nil, or a *MissingError.
func ProbeFilter() error {
	return probe("socket filters that read from the IP header (Linux 4.18)",
		features.HaveProgramHelper(ebpf.SocketFilter, asm.FnSkbLoadBytesRelative))
}

// probe turns the answer of a feature test into a MissingError.
func probe(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ebpf.ErrNotSupported):
		return &MissingError{Need: NeedKernel, What: what, Err: err, Hint: "use a newer kernel, or one built with it"}
	}
	return explain(what, err)
}

// lacks is the error of a process without privileges.
func lacks(what string, names []string, err error) error {
	return &MissingError{Need: NeedCapability, What: what, Err: err,
		Hint: fmt.Sprintf("give the process %s, or run it as root", strings.Join(names, ", "))}
}

// explain says what is behind an error of the system.
func explain(what string, err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier) && len(missingCapabilities()) == 0:
		return &MissingError{Need: NeedKernel, What: what, Err: err,
			Hint: "the kernel's verifier refuses the program: use Linux 6.6 or newer"}
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		missing := missingCapabilities()
		if len(missing) == 0 {
			missing = []string{"CAP_SYS_ADMIN"} // sharing takes that: programs and maps are found by number
		}
		return lacks(what, missing, err)
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return &MissingError{Need: NeedMemlock, What: what, Err: err,
			Hint: "raise the limit of locked memory (ulimit -l), give the process CAP_IPC_LOCK, or use a smaller arena"}
	}
	return fmt.Errorf("bpf: %s: %w", what, err)
}

// Explain returns err as a *MissingError when it says that a privilege or memory is missing, for what was tried.
func Explain(what string, err error) error { return explain(what, err) }
