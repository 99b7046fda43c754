package vsync

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/BurntSushi/toml"
)

// configVariable names the file that the environment begins with.
const configVariable = "ISIS_CONFIG"

// configFileMax is the longest configuration file that is read.
const configFileMax = 1 << 20

// ConfigFromFile returns the default configuration as a TOML file changes it. It reports all faults at once: bad
// values, and keys that nobody knows. The keys are the names of Config's fields in lower case with underscores, such as
//
//	interfaces   = ["lo"]
//	max_packet   = "8KB"      # sizes are numbers of bytes, or text with KB or MB
//	recv_buffer  = "4MB"
//	max_unstable = 1024
//	waiting      = "adaptive" # or "block", "busy"
//	heartbeat    = "200ms"
//
// Start reads such a file when the environment names one in ISIS_CONFIG; khamsin tune probe writes one.
func ConfigFromFile(path string) (Config, error) {
	text, err := readConfigFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("vsync: configuration: %w", err)
	}
	c, err := configFromText(text)
	if err != nil {
		return Config{}, fmt.Errorf("vsync: configuration %s: %w", path, err)
	}
	return c, nil
}

func readConfigFile(path string) (text string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err := io.ReadAll(io.LimitReader(file, configFileMax+1))
	if err != nil {
		return "", err
	}
	if len(data) > configFileMax {
		return "", fmt.Errorf("%s: longer than %d bytes: no configuration", path, configFileMax)
	}
	return string(data), nil
}

// configFromText reads the text of a configuration file.
func configFromText(text string) (Config, error) {
	var values map[string]any
	if _, err := toml.Decode(text, &values); err != nil {
		return Config{}, err
	}
	c := DefaultConfig()
	var faults []error
	for _, k := range fileKeys() {
		value, ok := values[k.name]
		if !ok {
			continue
		}
		delete(values, k.name)
		if err := k.read(&c, value); err != nil {
			faults = append(faults, fmt.Errorf("%s = %v: %w", k.name, value, err))
		}
	}
	for _, name := range slices.Sorted(keysOf(values)) {
		faults = append(faults, fmt.Errorf("%s: unknown key", name))
	}
	if len(faults) == 0 {
		if err := c.Validate(); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return Config{}, errors.Join(faults...)
	}
	return c, nil
}

func keysOf(m map[string]any) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// fileKey reads one key of a configuration file.
type fileKey struct {
	name string
	read func(c *Config, value any) error
}

// fileKeys returns what each key does, in the order in which faults are reported.
func fileKeys() []fileKey {
	return append([]fileKey{
		{"system_name", textKey(func(c *Config) *string { return &c.SystemName })},
		{"interfaces", readInterfaceList},
		{"ttl", numberKey(func(c *Config) *int { return &c.TTL })},
		{"group_port", portKey(func(c *Config) *uint16 { return &c.GroupPort })},
		{"peer_port", portKey(func(c *Config) *uint16 { return &c.PeerPort })},
		{"max_packet", sizeKey(func(c *Config) *int { return &c.MaxPacket })},
		{"recv_buffer", sizeKey(func(c *Config) *int { return &c.RecvBuffer })},
		{"send_buffer", sizeKey(func(c *Config) *int { return &c.SendBuffer })},
		{"batch", numberKey(func(c *Config) *int { return &c.Batch })},
		{"oracle_size", numberKey(func(c *Config) *int { return &c.OracleSize })},
		{"eligible", switchKey(func(c *Config) *bool { return &c.Eligible })},
		{"fast_start", switchKey(func(c *Config) *bool { return &c.FastStart })},
		{"ignore_partitions", switchKey(func(c *Config) *bool { return &c.IgnorePartitions })},
		{"discovery", durationKey(func(c *Config) *time.Duration { return &c.Discovery })},
		{"heartbeat", durationKey(func(c *Config) *time.Duration { return &c.Heartbeat })},
		{"suspect_after", durationKey(func(c *Config) *time.Duration { return &c.SuspectAfter })},
		{"no_lifelines", switchKey(func(c *Config) *bool { return &c.NoLifelines })},
		{"protocol_timeout", durationKey(func(c *Config) *time.Duration { return &c.ProtocolTimeout })},
		{"oracle_lost", durationKey(func(c *Config) *time.Duration { return &c.OracleLost })},
		{"stuck_after", durationKey(func(c *Config) *time.Duration { return &c.StuckAfter })},
		{"query_timeout", durationKey(func(c *Config) *time.Duration { return &c.QueryTimeout })},
		{"handler_deadline", durationKey(func(c *Config) *time.Duration { return &c.HandlerDeadline })},
		{"handler_limit", durationKey(func(c *Config) *time.Duration { return &c.HandlerLimit })},
		{"status_dir", textKey(func(c *Config) *string { return &c.StatusDir })},
		{"system_key_file", keyFileKey(func(c *Config) *KeySource { return &c.SystemKey })},
		{"no_checksum", switchKey(func(c *Config) *bool { return &c.NoChecksum })},
		{"no_compression", switchKey(func(c *Config) *bool { return &c.NoCompression })},
		{"log_dir", textKey(func(c *Config) *string { return &c.LogDir })},
		{"max_message", sizeKey(func(c *Config) *int { return &c.MaxMessage })},
		{"max_unstable", numberKey(func(c *Config) *int { return &c.MaxUnstable })},
		{"max_transfers", numberKey(func(c *Config) *int { return &c.MaxTransfers })},
		{"max_queue", numberKey(func(c *Config) *int { return &c.MaxQueue })},
		{"threading", wordKey(func(c *Config) *Threading { return &c.Threading }, Combining, EngineLoop)},
		{"waiting", wordKey(func(c *Config) *Waiting { return &c.Waiting }, Adaptive, Block, BusyPoll)},
		{"pin_receiver", switchKey(func(c *Config) *bool { return &c.PinReceiver })},
		{"autotune", switchKey(func(c *Config) *bool { return &c.Autotune })},
		{"mute", switchKey(func(c *Config) *bool { return &c.Mute })},
	}, networkFileKeys()...)
}

func textKey(field func(c *Config) *string) func(*Config, any) error {
	return func(c *Config, value any) error {
		s, ok := value.(string)
		if !ok {
			return errors.New("not a text")
		}
		*field(c) = s
		return nil
	}
}

func numberKey(field func(c *Config) *int) func(*Config, any) error {
	return func(c *Config, value any) error {
		n, ok := value.(int64)
		if !ok || int64(int32(n)) != n {
			return errors.New("not a whole number of a sensible size")
		}
		*field(c) = int(n)
		return nil
	}
}

func portKey(field func(c *Config) *uint16) func(*Config, any) error {
	return func(c *Config, value any) error {
		n, ok := value.(int64)
		if !ok {
			return errors.New("not a port number from 1 to 65535")
		}
		return portInto(field)(c, strconv.FormatInt(n, 10))
	}
}

func switchKey(field func(c *Config) *bool) func(*Config, any) error {
	return func(c *Config, value any) error {
		b, ok := value.(bool)
		if !ok {
			return errors.New("not true or false")
		}
		*field(c) = b
		return nil
	}
}

// keyFileKey reads the path of a file with a key.
func keyFileKey(field func(c *Config) *KeySource) func(*Config, any) error {
	return func(c *Config, value any) error {
		path, ok := value.(string)
		if !ok || path == "" {
			return errors.New("not the path of a file")
		}
		*field(c) = KeyFile(path)
		return nil
	}
}

// sizeKey reads bytes: a number, or text such as "8KB". Zero means the default.
func sizeKey(field func(c *Config) *int) func(*Config, any) error {
	return func(c *Config, value any) error {
		switch v := value.(type) {
		case int64:
			return numberKey(field)(c, v)
		case string:
			n, err := parseSize(v)
			if err == nil {
				*field(c) = n
			}
			return err
		}
		return errSize
	}
}

func durationKey(field func(c *Config) *time.Duration) func(*Config, any) error {
	return func(c *Config, value any) error {
		s, _ := value.(string)
		d, err := time.ParseDuration(s)
		if err != nil {
			return errors.New(`not a time such as "200ms"`)
		}
		*field(c) = d
		return nil
	}
}

// wordKey reads one of a few words: what the values' String methods return.
func wordKey[T fmt.Stringer](field func(c *Config) *T, all ...T) func(*Config, any) error {
	return func(c *Config, value any) error {
		for _, v := range all {
			if value == v.String() {
				*field(c) = v
				return nil
			}
		}
		return fmt.Errorf("want one of %v", all)
	}
}

func readInterfaceList(c *Config, value any) error {
	list, ok := value.([]any)
	if !ok || len(list) == 0 {
		return errors.New("not a list of names of interfaces")
	}
	c.Interfaces = nil
	for _, item := range list {
		name, ok := item.(string)
		if !ok || name == "" {
			return fmt.Errorf("%v is no name of an interface", item)
		}
		c.Interfaces = append(c.Interfaces, name)
	}
	return nil
}
