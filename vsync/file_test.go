package vsync

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "khamsin.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// every key, with a value that is not the default
const everyKey = `
system_name = "s"
interfaces = ["lo", "eth9"]
ttl = 4
group_port = 4000
peer_port = 4002
max_packet = "8KB"
recv_buffer = "8MB"
send_buffer = 65536
batch = 32
ipv6 = true
unicast_only = true
hosts = ["a", "b:7"]
fan_out = 4
max_connections = 16
channel_low = 7
channel_high = 90
max_channels = 9
subnet = "10.0.0.0"
netmask = "255.0.0.0"
oracle_size = 5
eligible = false
ignore_partitions = true
discovery = "1s"
heartbeat = "100ms"
suspect_after = "2s"
protocol_timeout = "3s"
stuck_after = "1m"
oracle_lost = "20s"
no_lifelines = true
query_timeout = "5s"
handler_deadline = "2s"
handler_limit = "30s"
no_compression = true
no_checksum = true
status_dir = "/no/such/dir"
system_key_file = "/no/such/file"
log_dir = "logs"
max_message = "1MB"
max_unstable = 100
max_queue = 400
max_transfers = 3
threading = "loop"
waiting = "busy"
pin_receiver = true
autotune = false
mute = true
`

func TestConfigFromFile(t *testing.T) {
	c, err := ConfigFromFile(writeConfig(t, everyKey))
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxPacket != 8<<10 || c.RecvBuffer != 8<<20 || c.SendBuffer != 64<<10 || c.Batch != 32 || c.Autotune ||
		c.Waiting != BusyPoll || c.Threading != EngineLoop || c.Heartbeat != 100*time.Millisecond ||
		c.GroupPort != 4000 ||
		!slices.Equal(c.Interfaces, []string{"lo", "eth9"}) || c.MaxQueue != 400 || c.OracleSize != 5 {
		t.Errorf("%+v", c)
	}
	got, standard := reflect.ValueOf(c), reflect.ValueOf(DefaultConfig())
	for i := range got.NumField() {
		switch name := got.Type().Field(i).Name; name {
		case "Transport", "Logger", "OnPanic", "Types", "noLog", "choice", "hints", "key", "listed", "host",
			"FastStart": // the former not of a file, the last against Eligible
		default:
			if reflect.DeepEqual(got.Field(i).Interface(), standard.Field(i).Interface()) {
				t.Errorf("no key changed %s", name)
			}
		}
	}
	empty, err := ConfigFromFile(writeConfig(t, "# nothing\n"))
	if err != nil || !reflect.DeepEqual(empty, DefaultConfig()) {
		t.Errorf("an empty file changes the default: %v, %v", empty, err)
	}
}

func TestAllFaultsOfAFileAtOnce(t *testing.T) {
	_, err := ConfigFromFile(writeConfig(t, `
ttl = "far"
max_packet = "8 stones"
waiting = "never"
group_port = 70000
interfaces = "lo"
heartbeat = 200
mute = 1
batch = 99999999999
no_such = 1
[nested]
ttl = 1
`))
	for _, want := range []string{"ttl", "max_packet", "want one of [adaptive block busy]", "group_port",
		"interfaces", "heartbeat", "mute", "batch", "no_such: unknown", "nested: unknown", "khamsin.toml"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	for _, text := range []string{"ttl = 300", "recv_buffer = 1", "batch = -1", "ttl = 1\nttl = 2", "= 3", "ttl"} {
		if _, err := ConfigFromFile(writeConfig(t, text)); err == nil {
			t.Errorf("%q accepted", text)
		}
	}
	if _, err := ConfigFromFile(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(unwrapAll(err)) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := ConfigFromFile(t.TempDir()); err == nil {
		t.Error("a directory was read")
	}
	if _, err := ConfigFromFile(writeConfig(t, strings.Repeat("#", configFileMax+1))); err == nil {
		t.Error("a huge file was read")
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = u.Unwrap()
	}
}

// The environment's other variables change what the file says.
func TestEnvironmentNamesAFile(t *testing.T) {
	path := writeConfig(t, "ttl = 4\nmax_unstable = 100\n")
	c, err := configFrom([]string{"ISIS_CONFIG=" + path, "ISIS_TTL=5", "ISIS_AUTOTUNE=false"})
	if err != nil || c.TTL != 5 || c.MaxUnstable != 100 || c.Autotune {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = configFrom([]string{"ISIS_CONFIG=" + path + "x", "ISIS_TTL=x"})
	if err == nil || !strings.Contains(err.Error(), "ISIS_CONFIG") || !strings.Contains(err.Error(), "ISIS_TTL") {
		t.Errorf("faults of file and environment: %v", err)
	}
}

// The length of packets can be set in the shell, in the program and in a file, and is the transport's then.
//
// rows: TUN-13, PAR-25
func TestMessageSizeByAllWays(t *testing.T) {
	fromEnv, err := configFrom([]string{"ISIS_MAXMSGLEN=4028"})
	if err != nil {
		t.Fatal(err)
	}
	fromFile, err := ConfigFromFile(writeConfig(t, "max_packet = 4028"))
	if err != nil {
		t.Fatal(err)
	}
	fromCode, err := resolve([]Option{WithMaxPacket(4028)})
	if err != nil {
		t.Fatal(err)
	}
	for way, c := range map[string]Config{"environment": fromEnv, "file": fromFile, "program": fromCode} {
		if c.MaxPacket != 4028 {
			t.Errorf("%s: %d", way, c.MaxPacket)
		}
		if runtime.GOOS != "linux" {
			continue
		}
		c.Mute = true
		tr, err := UDP()(&c)
		if err != nil {
			t.Fatal(err)
		}
		if mtu := tr.Caps().MTU; mtu != 4028 {
			t.Errorf("%s: the transport's packets have %d bytes", way, mtu)
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
}

// rows: TUN-01, TUN-02
func TestBuffersInTheManualsTerms(t *testing.T) {
	for _, c := range []struct {
		config        Config
		receive, send int
	}{
		{Config{}, 4 << 20, 2 << 20},
		{Config{MaxPacket: 32 << 10}, 4 << 20, 2 << 20},
		{Config{MaxPacket: 65507}, 4 << 20, 2 << 20},
		{Config{MaxPacket: 128 << 10}, 64 * 128 << 10, 32 * 128 << 10},
		{Config{RecvBuffer: 5000, SendBuffer: 6000, MaxPacket: 1400}, 5000, 6000},
	} {
		if receive, send := c.config.Buffers(); receive != c.receive || send != c.send {
			t.Errorf("%d: buffers of %d and %d, want %d and %d", c.config.MaxPacket, receive, send, c.receive, c.send)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add(everyKey)
	f.Add("ttl = ")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := configFromText(text); err == nil {
			if err := c.Validate(); err != nil {
				t.Errorf("accepted, but %v", err)
			}
		}
	})
}
