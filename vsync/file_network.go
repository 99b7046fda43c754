package vsync

import (
	"errors"
	"fmt"
	"net/netip"
)

// networkFileKeys returns what the settings of Config.Network are called in a file.
func networkFileKeys() []fileKey {
	return []fileKey{
		{"ipv6", switchKey(func(c *Config) *bool { return &c.Network.IPv6 })},
		{"unicast_only", switchKey(func(c *Config) *bool { return &c.Network.UnicastOnly })},
		{"tcp_only", switchKey(func(c *Config) *bool { return &c.Network.TCPOnly })},
		{"tcp_direct", switchKey(func(c *Config) *bool { return &c.Network.TCPDirect })},
		{"max_connections", numberKey(func(c *Config) *int { return &c.Network.MaxConnections })},
		{"fan_out", numberKey(func(c *Config) *int { return &c.Network.FanOut })},
		{"hosts", readHostList},
		{"channel_low", channelKey(func(c *Config) *uint32 { return &c.Network.ChannelLow })},
		{"channel_high", channelKey(func(c *Config) *uint32 { return &c.Network.ChannelHigh })},
		{"max_channels", numberKey(func(c *Config) *int { return &c.Network.MaxChannels })},
		{"skip_first_interface", switchKey(func(c *Config) *bool { return &c.Network.SkipFirst })},
		{"subnet", addressKey(func(c *Config) *netip.Addr { return &c.Network.Subnet })},
		{"netmask", addressKey(func(c *Config) *netip.Addr { return &c.Network.Netmask })},
	}
}

func readHostList(c *Config, value any) error {
	list, ok := value.([]any)
	if !ok {
		return errors.New("not a list of hosts")
	}
	c.Network.Hosts = nil
	for _, item := range list {
		name, ok := item.(string)
		if !ok || name == "" {
			return fmt.Errorf("%v is no host", item)
		}
		c.Network.Hosts = append(c.Network.Hosts, name)
	}
	return nil
}

func channelKey(field func(c *Config) *uint32) func(*Config, any) error {
	return func(c *Config, value any) error {
		n, ok := value.(int64)
		if !ok || n < 1 || n >= 1<<24 {
			return errors.New("not a number from 1 to 16777215")
		}
		*field(c) = uint32(n)
		return nil
	}
}

func addressKey(field func(c *Config) *netip.Addr) func(*Config, any) error {
	return func(c *Config, value any) error {
		text, ok := value.(string)
		if !ok {
			return errors.New("not a text such as \"10.0.0.0\"")
		}
		return addressInto(field)(c, text)
	}
}
