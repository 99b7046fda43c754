// Package netns makes hosts for tests: network namespaces that are joined by virtual Ethernet, and gone when the test
// ends. It needs root on Linux and the ip command.
package netns
