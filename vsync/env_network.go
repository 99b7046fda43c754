package vsync

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// networkParameters returns what the settings of Config.Network are called in the environment.
func networkParameters() []parameter {
	return []parameter{
		{"ISIS_UNICAST_ONLY", boolInto(func(c *Config) *bool { return &c.Network.UnicastOnly })},
		{"ISIS_TCP_ONLY", boolInto(func(c *Config) *bool { return &c.Network.TCPOnly })},
		{"ISIS_TCP_DIRECT", boolInto(func(c *Config) *bool { return &c.Network.TCPDirect })},
		{"ISIS_HOSTS", readHosts},
		{"ISIS_MCRANGE_LOW", channelInto(func(c *Config) *uint32 { return &c.Network.ChannelLow })},
		{"ISIS_MCRANGE_HIGH", channelInto(func(c *Config) *uint32 { return &c.Network.ChannelHigh })},
		{"ISIS_MAXIPMCADDRS", readMaxChannels},
		{"ISIS_SKIP_FIRSTINTERFACE", boolInto(func(c *Config) *bool { return &c.Network.SkipFirst })},
		{"ISIS_SKIP_FIRST_NETWORK_INTERFACE", boolInto(func(c *Config) *bool { return &c.Network.SkipFirst })},
		{"ISIS_SUBNET", addressInto(func(c *Config) *netip.Addr { return &c.Network.Subnet })},
		{"ISIS_NETMASK", addressInto(func(c *Config) *netip.Addr { return &c.Network.Netmask })},
	}
}

// readMaxChannels reads how many multicast addresses are used; with none of them there is no multicast.
func readMaxChannels(c *Config, value string) error {
	if err := intInto(func(c *Config) *int { return &c.Network.MaxChannels })(c, value); err != nil {
		return err
	}
	if c.Network.MaxChannels == 0 && !c.Network.TCPOnly {
		c.Network.UnicastOnly = true
	}
	return nil
}

// readHosts reads names or addresses with commas between them; empty places do not matter.
func readHosts(c *Config, value string) error {
	c.Network.Hosts = nil
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name != "" {
			c.Network.Hosts = append(c.Network.Hosts, name)
		}
	}
	return nil
}

func channelInto(field func(c *Config) *uint32) func(*Config, string) error {
	return func(c *Config, value string) error {
		n, err := strconv.ParseUint(value, 10, 24)
		if err != nil || n == 0 {
			return errors.New("not a number from 1 to 16777215")
		}
		*field(c) = uint32(n)
		return nil
	}
}

// addressInto reads an IPv4 address, dotted or as one number.
func addressInto(field func(c *Config) *netip.Addr) func(*Config, string) error {
	return func(c *Config, value string) error {
		if n, err := strconv.ParseUint(value, 0, 32); err == nil {
			*field(c) = netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
			return nil
		}
		a, err := netip.ParseAddr(value)
		if err != nil || !a.Unmap().Is4() {
			return errors.New("not an IPv4 address such as 10.0.0.0")
		}
		*field(c) = a.Unmap()
		return nil
	}
}
