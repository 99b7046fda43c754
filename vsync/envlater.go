package vsync

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Settings of the environment that this version checks and cannot do yet, unless they ask for what it does anyway.

// defaultLogDir is where log files go that have no directory of their own.
const defaultLogDir = "logs"

// errUnsupported refuses what is right and cannot be done.
var errUnsupported = errors.New("not supported by this version") // immutable: an error

// unsupported checks a value and refuses it, unless it is the one that stands for the default.
func unsupported(check func(value string) error, normal string) func(*Config, string) error {
	return func(_ *Config, value string) error {
		if err := check(value); err != nil {
			return err
		}
		if value != normal {
			return errUnsupported
		}
		return nil
	}
}

// shown returns a value as an error may show it: secrets are not shown.
func shown(name, value string) string {
	switch name {
	case "ISIS_AESKEY", "ISIS_KEY", "ISIS_AES":
		return "(hidden)"
	}
	return strconv.Quote(value)
}

// readLogged makes a log file in the default directory, unless ISIS_LOGDIR names another.
func readLogged(c *Config, value string) error {
	on, err := parseBool(value)
	switch {
	case err != nil:
		return err
	case !on:
		c.LogDir, c.noLog = "", true
	case c.LogDir == "":
		c.LogDir = defaultLogDir
	}
	return nil
}

func readLogDir(c *Config, value string) error {
	if value == "" {
		return errors.New("names no directory")
	}
	if !c.noLog {
		c.LogDir = value
	}
	return nil
}

// hostList checks a list of names with commas between them. Blanks, and empty places, do not matter.
func hostList(value string) error {
	for name := range strings.SplitSeq(value, ",") {
		if strings.ContainsAny(strings.TrimSpace(name), " \t/") {
			return fmt.Errorf("%q is no host", strings.TrimSpace(name))
		}
	}
	return nil
}

// ipv4 checks an IPv4 address, dotted or as a number.
func ipv4(value string) error {
	if _, err := strconv.ParseUint(value, 0, 32); err == nil {
		return nil
	}
	if a, err := netip.ParseAddr(value); err != nil || !a.Is4() {
		return errors.New("not an IPv4 address, as in 192.168.0.0, and not a number")
	}
	return nil
}

// channelNumber checks the number of a multicast address.
func channelNumber(value string) error {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n < uint64(dataplane.ChannelMin) || n > uint64(dataplane.ChannelMax) {
		return fmt.Errorf("not a number from %d to %d", dataplane.ChannelMin, dataplane.ChannelMax)
	}
	return nil
}

// atLeast checks a number.
func atLeast(least int) func(string) error {
	return func(value string) error {
		if n, err := strconv.Atoi(value); err != nil || n < least {
			return fmt.Errorf("not a number from %d on", least)
		}
		return nil
	}
}

// keyBytes is the length of a system key.
const keyBytes = 32

// key checks a system key. The error does not show it.
func key(value string) error {
	if b, err := hex.DecodeString(value); err != nil || len(b) != keyBytes {
		return fmt.Errorf("not %d hexadecimal digits", 2*keyBytes)
	}
	return nil
}
