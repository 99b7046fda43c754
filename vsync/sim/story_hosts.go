package sim

import "fmt"

func (s *story) doHosts(args []string) error {
	count, err := number(args, 0)
	if err != nil || len(s.w.nodes) > 0 {
		return fmt.Errorf("a count is needed before there are nodes (%v)", err)
	}
	s.w.opts.Hosts = count
	return nil
}

func (s *story) doExpectSeeking(args []string) error {
	return s.forEach(args, func(p *process) error {
		if p.attached {
			return fmt.Errorf("node %d belongs to a system", p.node.number)
		}
		return nil
	})
}
