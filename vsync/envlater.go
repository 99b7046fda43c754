package vsync

import (
	"errors"
	"fmt"
	"strconv"
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

// atLeast checks a number.
func atLeast(least int) func(string) error {
	return func(value string) error {
		if n, err := strconv.Atoi(value); err != nil || n < least {
			return fmt.Errorf("not a number from %d on", least)
		}
		return nil
	}
}

// readKey takes the system's key. The error does not show it.
func readKey(c *Config, value string) error {
	source := HexKey(value)
	if _, err := source(); err != nil {
		return err
	}
	c.SystemKey = source
	return nil
}

// readOldKey is readKey under a name that it had.
func readOldKey(name string) func(c *Config, value string) error {
	return func(c *Config, value string) error {
		c.hints = append(c.hints, name+" is an old name of ISIS_AESKEY")
		return readKey(c, value)
	}
}

// readSums turns checksums off. With a key packets are authenticated all the same.
func readSums(c *Config, value string) error {
	on, err := parseBool(value)
	if err == nil {
		c.NoChecksum = !on
	}
	return err
}
