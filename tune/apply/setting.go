package apply

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/tune"
	"github.com/khamsin-io/khamsin/tune/hostview"
)

// read returns the value that a setting has, in the form in which values are compared.
func read(h *hostview.Host, c tune.Change) (string, error) {
	switch c.Kind {
	case tune.Sysctl, tune.SysFS:
		text, err := h.Text(c.Path())
		return normal(text), err
	case tune.MTU:
		l, err := h.System().Link(c.Target)
		return strconv.Itoa(l.MTU), err
	case tune.Rings:
		r, err := h.System().Rings(c.Target)
		return fmt.Sprintf("%d %d", r.Rx, r.Tx), err
	}
	return "", fmt.Errorf("setting of unknown kind %q", c.Kind)
}

// write gives a setting a value.
func write(h *hostview.Host, c tune.Change, value string) error {
	switch c.Kind {
	case tune.Sysctl, tune.SysFS:
		return h.Write(c.Path(), value)
	case tune.MTU:
		mtu, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("MTU %q is no number", value)
		}
		return h.System().SetMTU(c.Target, mtu)
	case tune.Rings:
		var rx, tx int
		if _, err := fmt.Sscanf(value, "%d %d", &rx, &tx); err != nil {
			return fmt.Errorf("rings %q are no two numbers", value)
		}
		return h.System().SetRings(c.Target, rx, tx)
	}
	return fmt.Errorf("setting of unknown kind %q", c.Kind)
}

// permitted returns nil when the caller may change a setting. It changes nothing.
func permitted(h *hostview.Host, c tune.Change) error {
	switch c.Kind {
	case tune.Sysctl, tune.SysFS:
		return h.Writable(c.Path())
	}
	if !h.System().MayConfigure() {
		return fmt.Errorf("interface %q: takes CAP_NET_ADMIN", c.Target)
	}
	return nil
}

// normal brings what a file holds into one form: words with single blanks; of a choice such as "always [madvise]
// never" the chosen one; of a mask of processors the digits that count.
func normal(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if _, rest, ok := strings.Cut(text, "["); ok {
		if chosen, _, ok := strings.Cut(rest, "]"); ok {
			return chosen
		}
	}
	if strings.Contains(text, ",") && strings.Trim(text, "0123456789abcdef,") == "" {
		text = strings.ReplaceAll(text, ",", "")
	}
	if short := strings.TrimLeft(text, "0"); short != text && strings.Trim(short, "0123456789abcdef") == "" {
		if short == "" {
			short = "0"
		}
		return short
	}
	return text
}
