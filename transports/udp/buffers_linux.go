package udp

import "golang.org/x/sys/unix"

// RequestBuffers asks anew for socket buffers of so many bytes, at every socket, and returns what was granted, as
// Buffers does. It may be called by any goroutine at any time; packets that wait stay where they are.
func (t *Transport) RequestBuffers(receive, send int) (gotReceive, gotSend int) {
	t.control.Lock()
	defer t.control.Unlock()
	if t.shut {
		return 0, 0
	}
	unicast := t.sender.socket.fd
	// A size that is refused leaves the buffer as it was, which is what is returned then.
	_ = buffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, send, "SO_SNDBUF")(unicast)
	_ = buffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receive, "SO_RCVBUF")(unicast)
	for _, s := range t.groups {
		_ = buffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receive, "SO_RCVBUF")(s.fd)
	}
	return t.granted()
}

// Unbroken returns the longest payload that leaves by the interface without IP fragments.
func (t *Transport) Unbroken() int { return t.cfg.ifMTU - headerBytes(t.cfg.LocalIP) }

// granted returns the bytes of the socket buffers without what the system adds. The caller holds control.
func (t *Transport) granted() (receive, send int) {
	receive, _ = unix.GetsockoptInt(t.sender.socket.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	send, _ = unix.GetsockoptInt(t.sender.socket.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	return receive / 2, send / 2
}

// noteShort warns of buffers that the system cut to its limits, which it does without a word.
func (t *Transport) noteShort() {
	receive, send := t.Buffers()
	for _, b := range []struct {
		name, limit    string
		asked, granted int
	}{
		{"receive", "net.core.rmem_max", t.cfg.RecvBuffer, receive},
		{"send", "net.core.wmem_max", t.cfg.SendBuffer, send},
	} {
		if b.granted < b.asked {
			t.log.Warn("udp: the system granted a smaller socket buffer than was asked for; bursts will be lost",
				"buffer", b.name, "asked", b.asked, "granted", b.granted, "limit", b.limit, "local", t.local)
		}
	}
}
