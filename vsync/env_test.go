package vsync

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// rows: PAR-01, PAR-06, PAR-07, PAR-14, PAR-15, PAR-16, PAR-17, PAR-18, PAR-21, PAR-23, PAR-24, PAR-25, PAR-26, PAR-28
// rows: NET-04, PAR-29, PAR-34, PAR-35, PAR-39, LIF-19, PAR-30, PAR-33, PAR-36
func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		env   string
		check func(c *Config) bool // nil: must be refused
	}{
		{"ISIS_ORACLESIZE=5", func(c *Config) bool { return c.OracleSize == 5 }},
		{"ISIS_ORACLESIZE=4", nil},
		{"ISIS_ORACLESIZE=0", nil},
		{"ISIS_ORACLESIZE=many", nil},
		{"ISIS_NETWORK_INTERFACES=lo, eth9", func(c *Config) bool {
			return slices.Equal(c.Interfaces, []string{"lo",
				"eth9"})
		}},
		{"ISIS_NETWORK_INTERFACES= , ", nil},
		{"ISIS_NETWORK_INTEFACES=lo", nil},
		{"ISIS_PORTNO=4000", func(c *Config) bool { return c.GroupPort == 4000 }},
		{"ISIS_GROUPPORT=4000", func(c *Config) bool { return c.GroupPort == 4000 }},
		{"ISIS_PORTNO=4000 ISIS_GROUPPORT=4000", func(c *Config) bool { return c.GroupPort == 4000 }},
		{"ISIS_PORTNO=4000 ISIS_GROUPPORT=4001", nil},
		{"ISIS_PORTNO=65536", nil},
		{"ISIS_PORTNO=0", nil},
		{"ISIS_PORTNOp=4002", func(c *Config) bool { return c.PeerPort == 4002 }},
		{"ISIS_PORTNOp=65535", nil},
		{"ISIS_PORTNOa=4003", nil},
		{"ISIS_TTL=4", func(c *Config) bool { return c.TTL == 4 && c.ttl() == 4 }},
		{"ISIS_TTL=256", nil},
		{"ISIS_MAXMSGLEN=8KB", func(c *Config) bool { return c.MaxPacket == 8192 }},
		{"ISIS_MAXPACKETLEN=1400", func(c *Config) bool { return c.MaxPacket == 1400 }},
		{"ISIS_MAXMSGLEN=16MB", func(c *Config) bool { return c.MaxPacket == maxPacketMax }},
		{"ISIS_MAXMSGLEN=x", nil},
		{"ISIS_MAXMSGLEN=8KB ISIS_MAXPACKETLEN=4KB", nil},
		{"ISIS_MAXASYNCMTOTAL=100", func(c *Config) bool { return c.MaxUnstable == 100 }},
		{"ISIS_MAXASYNCMTOTAL=0", nil},
		{"ISIS_MAXASYNCMTOTAL=-3", nil},
		{"ISIS_DEFAULTTIMEOUT=1500", func(c *Config) bool { return c.ProtocolTimeout == 1500*time.Millisecond }},
		{"ISIS_DEFAULTTIMEOUT=soon", nil},
		{"ISIS_IGNOREPARTITIONS=TRUE", func(c *Config) bool { return c.IgnorePartitions }},
		{"ISIS_IGNOREPARTITIONS=yes", nil},
		{"ISIS_MUTE=1", func(c *Config) bool { return c.Mute }},
		{"ISIS_MUTE=0", func(c *Config) bool { return !c.Mute }},
		{"ISIS_MD5SIGS=true", func(*Config) bool { return true }},
		{"ISIS_MD5SIGS=maybe", nil},
		{"ISIS_MD5SIGS=false", func(c *Config) bool { return c.NoChecksum }},
		{"ISIS_AESKEY=" + hexKey, func(c *Config) bool { return c.SystemKey != nil && len(c.hints) == 0 }},
		{"ISIS_KEY=" + hexKey, func(c *Config) bool { return c.SystemKey != nil && len(c.hints) == 1 }},
		{"ISIS_AES=" + hexKey, func(c *Config) bool { return c.SystemKey != nil && len(c.hints) == 1 }},
		{"ISIS_AESKEY=" + hexKey[1:], nil},
		{"ISIS_AESKEY=" + hexKey[2:], nil},
		{"ISIS_AESKEY=" + hexKey + "00", nil},
		{"ISIS_AESKEY=" + strings.Repeat("xy", KeyLen), nil},
		{"ISIS_AESKEY=" + hexKey + " ISIS_KEY=" + strings.Repeat("00", KeyLen), nil},
		{"ISIS_USEIPv4=true", func(*Config) bool { return true }},
		{"ISIS_USEIPv4=false", func(c *Config) bool { return c.Network.IPv6 }},
		{"ISIS_USEIPv4=maybe", nil},
		{"ISIS_USEIPv6=true", func(c *Config) bool { return c.Network.IPv6 }},
		{"ISIS_USEIPv6=false", func(c *Config) bool { return !c.Network.IPv6 }},
		{"ISIS_USEIPv4=false ISIS_USEIPv6=false", nil},
		{"ISIS_DONT_COMPRESS=true", func(c *Config) bool { return c.NoCompression }},
		{"ISIS_DONT_COMPRESS=false", func(c *Config) bool { return !c.NoCompression }},
		{"ISIS_DONT_COMPRESS=2", nil},
		{"ISIS_LOGGED=true", func(c *Config) bool { return c.LogDir == "logs" }},
		{"ISIS_LOGDIR=/tmp/x", func(c *Config) bool { return c.LogDir == "/tmp/x" }},
		{"ISIS_LOGGED=true ISIS_LOGDIR=/tmp/x", func(c *Config) bool { return c.LogDir == "/tmp/x" }},
		{"ISIS_LOGGED=false ISIS_LOGDIR=/tmp/x", func(c *Config) bool { return c.LogDir == "" }},
		{"ISIS_LOGGED=yes", nil},
		{"ISIS_LOGDIR=", nil},
		{"ISIS_UNICAST_ONLY=false ISIS_TCP_ONLY=False ISIS_TCP_DIRECT=0", func(*Config) bool { return true }},
		{"ISIS_TCP_ONLY=perhaps", nil},
		{"ISIS_HOSTS=", func(*Config) bool { return true }},
		{"ISIS_HOSTS=a/b", nil},
		{"ISIS_SKIP_FIRSTINTERFACE=false", func(*Config) bool { return true }},
		{"ISIS_SKIP_FIRST_NETWORK_INTERFACE=false", func(*Config) bool { return true }},
		{"ISIS_SKIP_FIRSTINTERFACE=0 ISIS_SKIP_FIRST_NETWORK_INTERFACE=1", nil},
		{"ISIS_NETMASK=0 ISIS_SUBNET=0", func(*Config) bool { return true }},
		{"ISIS_NETMASK=255.255", nil},
		{"ISIS_SUBNET=here", nil},
		{"ISIS_MCRANGE_LOW=5000 ISIS_MCRANGE_HIGH=505000", func(*Config) bool { return true }},
		{"ISIS_MCRANGE_LOW=600000 ISIS_MCRANGE_HIGH=505000", nil},
		{"ISIS_MCRANGE_HIGH=16777216", nil},
		{"ISIS_MAXIPMCADDRS=25 ISIS_OOBMAXIPMCADDRS=4", func(c *Config) bool { return c.MaxTransfers == 4 }},
		{"ISIS_OOBMAXIPMCADDRS=257", nil},
		{"ISIS_MAXIPMCADDRS=-1", nil},
		{"ISIS_TOKEN_DELAY=0", nil},
		{"ISIS_UDPCHKSUM=true", func(*Config) bool { return true }},
		{"ISIS_LARGE=false", func(*Config) bool { return true }},
		{"ISIS_GRACEFULSHUTDOWN=true", func(*Config) bool { return true }},
		{"ISIS_GRACEFULSHUTDOWN=false", nil},
		{"ISIS_AESKEY=00", nil},
		{"ISIS_KEY=zz", nil},
		{"ISIS_NOSUCH=1", nil},
		{"PATH=/bin", func(*Config) bool { return true }},
	} {
		got, err := configFrom(strings.Fields(strings.ReplaceAll(c.env, ", ", ",")))
		switch {
		case c.check == nil && err == nil:
			t.Errorf("%s: accepted", c.env)
		case c.check != nil && err != nil:
			t.Errorf("%s: %v", c.env, err)
		case c.check != nil && !c.check(&got):
			t.Errorf("%s: %+v", c.env, got)
		}
	}
}

func TestAllFaultsOfTheEnvironmentAtOnce(t *testing.T) {
	_, err := configFrom([]string{"ISIS_TTL=x", "ISIS_MUTE=x", "ISIS_NOSUCH=1", "ISIS_TOKEN_DELAY=5"})
	for _, want := range []string{
		"ISIS_TTL", "ISIS_MUTE", "ISIS_NOSUCH: unknown", `ISIS_TOKEN_DELAY="5": not supported`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// hexKey is a system key as the environment has it.
const hexKey = "deadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeef"

// Neither an error nor a configuration that is printed shows a key.
//
// rows: PAR-19
func TestKeysAreNotPrinted(t *testing.T) {
	const secret = "deadbeef"
	for _, env := range [][]string{
		{"ISIS_AESKEY=" + secret}, {"ISIS_AESKEY=" + hexKey + "0"},
		{"ISIS_AESKEY=" + hexKey, "ISIS_KEY=" + strings.Repeat("00", KeyLen)},
	} {
		_, err := configFrom(env)
		if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "ISIS_AESKEY") {
			t.Errorf("got %v", err)
		}
	}
	c, err := configFrom([]string{"ISIS_AESKEY=" + hexKey})
	if err != nil || strings.Contains(fmt.Sprintf("%v %+v %#v", c, c, c), secret) {
		t.Errorf("%+v, %v", c, err)
	}
}

// rows: LIF-20
func TestOptionsOverrideTheEnvironment(t *testing.T) {
	t.Setenv("ISIS_ORACLESIZE", "5")
	t.Setenv("ISIS_TTL", "3")
	c, err := resolve([]Option{WithOracleSize(1)})
	if err != nil || c.OracleSize != 1 || c.TTL != 3 {
		t.Errorf("option over environment: %+v, %v", c, err)
	}
	c, err = resolve([]Option{WithConfig(DefaultConfig()), WithOracleSize(7)})
	if err != nil || c.OracleSize != 7 || c.TTL != -1 {
		t.Errorf("WithConfig over environment: %+v, %v", c, err)
	}
	t.Setenv("ISIS_TTL", "far")
	if _, err := resolve(nil); err == nil {
		t.Error("bad environment accepted")
	}
	if _, err := resolve([]Option{WithConfig(DefaultConfig())}); err != nil {
		t.Errorf("WithConfig still reads the environment: %v", err)
	}
}

func TestDefaultConfig(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.ttl() != 0 || !slices.Equal(c.Interfaces, []string{"lo"}) {
		t.Errorf("the default leaves the host: %v, TTL %d", c.Interfaces, c.ttl())
	}
	c.Interfaces = []string{"eth0"}
	if c.ttl() != 1 {
		t.Errorf("TTL %d on a named interface, want 1", c.ttl())
	}
	if err := (&Config{}).Validate(); err == nil || strings.Count(err.Error(), "\n") < 8 {
		t.Errorf("an empty configuration has more faults than %v", err)
	}
}
