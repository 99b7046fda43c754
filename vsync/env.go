package vsync

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ConfigFromEnv returns the default configuration as the environment changes it. It reads every variable whose name
// begins with ISIS_ and reports all faults at once: bad values, names that nobody knows, and names of settings that
// this version does not have yet, unless they ask for what it does anyway.
//
//	ISIS_ORACLESIZE                        processes that run the membership service: 1, 3, 5 or 7
//	ISIS_NETWORK_INTERFACES                interfaces to talk on, separated by commas; the default is loopback only
//	ISIS_PORTNO, alias ISIS_GROUPPORT      UDP port of multicasts
//	ISIS_PORTNOp                           first UDP port for point-to-point traffic
//	ISIS_TTL                               multicast hops, 0 to 255
//	ISIS_MAXMSGLEN, alias ISIS_MAXPACKETLEN  bytes of the longest packet; 8KB and the like are understood
//	ISIS_MAXASYNCMTOTAL                    packets of one sender that may be under way
//	ISIS_DEFAULTTIMEOUT                    milliseconds before a membership request is repeated
//	ISIS_UNICAST_ONLY                      no multicast: UDP and a tree of relays
//	ISIS_TCP_ONLY                          neither multicast nor UDP: TCP and a tree of relays
//	ISIS_TCP_DIRECT                        with ISIS_TCP_ONLY: no tree, everybody is connected with everybody
//	ISIS_HOSTS                             where the membership service may be, with commas; a majority founds it
//	ISIS_MCRANGE_LOW, ISIS_MCRANGE_HIGH    multicast addresses, as offsets in 239.0.0.0/8
//	ISIS_MAXIPMCADDRS                      how many of them are used; 0: as ISIS_UNICAST_ONLY
//	ISIS_SUBNET, ISIS_NETMASK              select interfaces by their masked address; both 0: all that are up
//	ISIS_SKIP_FIRSTINTERFACE               leave out the first of them
//	ISIS_IGNOREPARTITIONS                  go on without a majority of the membership service
//	ISIS_MUTE                              report nothing
//	ISIS_LOGGED, ISIS_LOGDIR               write a log file, in that directory; the default directory is logs
//	ISIS_DONT_COMPRESS                     send long messages as they are
//	ISIS_AUTOTUNE                          adjust packets, windows, batches and buffers to what is lost
//	ISIS_AESKEY                            the system's key, 64 hexadecimal digits: packets are authenticated; the
//	                                       names ISIS_KEY and ISIS_AES are older
//	ISIS_MD5SIGS                           false: packets have not even a checksum, unless the system has a key
//	ISIS_CONFIG                            a file to begin with (ConfigFromFile); other variables change it
//
// Booleans are true, false, 1 or 0, in any case.
func ConfigFromEnv() (Config, error) { return configFrom(os.Environ()) }

// parameter reads one environment variable into a configuration.
type parameter struct {
	name string
	read func(c *Config, value string) error
}

// parameters returns what each known name does, in the order in which faults are reported.
func parameters() []parameter {
	return []parameter{
		{"ISIS_ORACLESIZE", intInto(func(c *Config) *int { return &c.OracleSize })},
		{"ISIS_NETWORK_INTERFACES", readInterfaces},
		{"ISIS_PORTNO", portInto(func(c *Config) *uint16 { return &c.GroupPort })},
		{"ISIS_GROUPPORT", portInto(func(c *Config) *uint16 { return &c.GroupPort })},
		{"ISIS_PORTNOp", portInto(func(c *Config) *uint16 { return &c.PeerPort })},
		{"ISIS_PORTNOa", refuse("cannot be set: it is ISIS_PORTNOp+1")},
		{"ISIS_TTL", readTTL},
		{"ISIS_MAXMSGLEN", readPacket},
		{"ISIS_MAXPACKETLEN", readPacket},
		{"ISIS_MAXASYNCMTOTAL", readUnstable},
		{"ISIS_DEFAULTTIMEOUT", readTimeout},
		{"ISIS_IGNOREPARTITIONS", boolInto(func(c *Config) *bool { return &c.IgnorePartitions })},
		{"ISIS_MUTE", boolInto(func(c *Config) *bool { return &c.Mute })},
		{"ISIS_AUTOTUNE", boolInto(func(c *Config) *bool { return &c.Autotune })},
		{"ISIS_GRACEFULSHUTDOWN", onlyBool(true)},
		{"ISIS_MD5SIGS", readSums},
		{"ISIS_USEIPv4", readIPv4},
		{"ISIS_USEIPv6", readIPv6},
		{"ISIS_LARGE", onlyBool(false)},
		{"ISIS_DONT_COMPRESS", boolInto(func(c *Config) *bool { return &c.NoCompression })},
		{"ISIS_LOGGED", readLogged},
		{"ISIS_LOGDIR", readLogDir},
		{"ISIS_OOBMAXIPMCADDRS", intInto(func(c *Config) *int { return &c.MaxTransfers })},
		{"ISIS_MCMDREPORTRATE", unsupported(atLeast(1), "")},
		{"ISIS_TOKEN_DELAY", unsupported(atLeast(1), "")},
		{"ISIS_UDPCHKSUM", onlyBool(true)},
		{"ISIS_AESKEY", readKey},
		{"ISIS_KEY", readOldKey("ISIS_KEY")},
		{"ISIS_AES", readOldKey("ISIS_AES")},
	}
}

// configFrom reads the variables of env, each "NAME=value".
func configFrom(env []string) (Config, error) {
	c := DefaultConfig()
	values := make(map[string]string)
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(strings.ToUpper(name), "ISIS_") {
			values[name] = strings.TrimSpace(value)
		}
	}
	faults := aliases(values)
	if path, ok := values[configVariable]; ok {
		file, err := ConfigFromFile(path)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s=%q: %w", configVariable, path, err))
		} else {
			c = file
		}
		delete(values, configVariable)
	}
	for _, p := range append(parameters(), networkParameters()...) {
		if value, ok := values[p.name]; ok {
			if err := p.read(&c, value); err != nil {
				faults = append(faults, fmt.Errorf("%s=%s: %w", p.name, shown(p.name, value), err))
			}
			delete(values, p.name)
		}
	}
	for _, name := range slices.Sorted(keys(values)) {
		faults = append(faults, fmt.Errorf("%s: unknown setting", name))
	}
	if len(faults) == 0 {
		if err := c.Validate(); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return Config{}, fmt.Errorf("vsync: environment: %w", errors.Join(faults...))
	}
	return c, nil
}

// aliases reports pairs of names for one setting that disagree.
func aliases(values map[string]string) []error {
	var faults []error
	for _, pair := range [][2]string{
		{"ISIS_PORTNO", "ISIS_GROUPPORT"}, {"ISIS_MAXMSGLEN", "ISIS_MAXPACKETLEN"},
		{"ISIS_SKIP_FIRSTINTERFACE", "ISIS_SKIP_FIRST_NETWORK_INTERFACE"},
		{"ISIS_AESKEY", "ISIS_KEY"}, {"ISIS_AESKEY", "ISIS_AES"}, {"ISIS_KEY", "ISIS_AES"},
	} {
		a, oka := values[pair[0]]
		b, okb := values[pair[1]]
		if oka && okb && a != b {
			faults = append(faults, fmt.Errorf("%s=%s and %s=%s are one setting and differ", pair[0], shown(pair[0], a),
				pair[1], shown(pair[1], b)))
		}
	}
	low, errLow := strconv.Atoi(values["ISIS_MCRANGE_LOW"])
	high, errHigh := strconv.Atoi(values["ISIS_MCRANGE_HIGH"])
	if errLow == nil && errHigh == nil && low >= high {
		faults = append(faults, fmt.Errorf("ISIS_MCRANGE_LOW=%d is not below ISIS_MCRANGE_HIGH=%d", low, high))
	}
	return faults
}

func keys(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func intInto(field func(c *Config) *int) func(*Config, string) error {
	return func(c *Config, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil {
			return errors.New("not a number")
		}
		*field(c) = n
		return nil
	}
}

func portInto(field func(c *Config) *uint16) func(*Config, string) error {
	return func(c *Config, value string) error {
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			return errors.New("not a port number from 1 to 65535")
		}
		*field(c) = uint16(n)
		return nil
	}
}

func boolInto(field func(c *Config) *bool) func(*Config, string) error {
	return func(c *Config, value string) error {
		b, err := parseBool(value)
		if err == nil {
			*field(c) = b
		}
		return err
	}
}

// onlyBool accepts a switch that stands where this version has it anyway.
func onlyBool(want bool) func(*Config, string) error {
	return func(_ *Config, value string) error {
		b, err := parseBool(value)
		if err == nil && b != want {
			err = fmt.Errorf("only %v is supported by this version", want)
		}
		return err
	}
}

// readIPv4 takes IPv6 when IPv4 is turned off.
func readIPv4(c *Config, value string) error {
	four, err := parseBool(value)
	if err == nil && !four {
		c.Network.IPv6 = true
	}
	return err
}

// readIPv6 is called behind readIPv4.
func readIPv6(c *Config, value string) error {
	six, err := parseBool(value)
	switch {
	case err != nil:
		return err
	case !six && c.Network.IPv6:
		return errors.New("neither IPv4 nor IPv6 is left: turn one of them on")
	}
	c.Network.IPv6 = six
	return nil
}

func refuse(why string) func(*Config, string) error {
	return func(*Config, string) error { return errors.New(why) }
}

func parseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errors.New("not true, false, 1 or 0")
}

func readInterfaces(c *Config, value string) error {
	c.Interfaces = nil
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name != "" {
			c.Interfaces = append(c.Interfaces, name)
		}
	}
	if len(c.Interfaces) == 0 {
		return errors.New("names no interface")
	}
	return nil
}

func readTTL(c *Config, value string) error {
	n, err := strconv.ParseUint(value, 10, 8)
	if err != nil {
		return errors.New("not a number from 0 to 255")
	}
	c.TTL = int(n)
	return nil
}

func readPacket(c *Config, value string) error {
	n, err := parseSize(value)
	if err != nil || n == 0 {
		return errSize
	}
	c.MaxPacket = min(n, maxPacketMax) // UDP carries no more; longer settings mean as long as possible
	return nil
}

// errSize refuses what is no size.
var errSize = errors.New("not a number of bytes such as 1400, 8KB or 1MB") // immutable: an error

// parseSize reads a size in bytes, with KB or MB behind it for 1024 and 1024*1024.
func parseSize(value string) (int, error) {
	digits, unit := strings.ToUpper(value), 1
	if d, ok := strings.CutSuffix(digits, "KB"); ok {
		digits, unit = strings.TrimSpace(d), 1<<10
	} else if d, ok := strings.CutSuffix(digits, "MB"); ok {
		digits, unit = strings.TrimSpace(d), 1<<20
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n*uint64(unit) > sizeMax {
		return 0, errSize
	}
	return int(n) * unit, nil
}

// sizeMax is beyond every size that can be set.
const sizeMax = 1 << 30

func readUnstable(c *Config, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n <= 0 {
		return errors.New("not a positive number")
	}
	c.MaxUnstable, c.MaxQueue = n, max(c.MaxQueue, n)
	return nil
}

func readTimeout(c *Config, value string) error {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil || n == 0 {
		return errors.New("not a positive number of milliseconds")
	}
	c.ProtocolTimeout = time.Duration(n) * time.Millisecond
	return nil
}
