package vsync

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// openLog opens where the system reports: the configured logger, and a file when one is wanted.
func (s *System) openLog() error {
	handler := s.config.logger().Handler()
	if dir := s.config.LogDir; dir != "" && !s.config.Mute {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("log directory: %w", err)
		}
		name := fmt.Sprintf("khamsin-%d-%x.log", s.self.PID, s.self.Incarnation)
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return fmt.Errorf("log file: %w", err)
		}
		s.logFile = f
		handler = slog.NewMultiHandler(handler, slog.NewTextHandler(f, nil))
	}
	s.log = slog.New(handler).With("system", s.config.SystemName, "self", s.self.String())
	return nil
}

// closeLog closes the file. What is logged after that goes to the logger alone.
func (s *System) closeLog() {
	if s.logFile != nil {
		_ = s.logFile.Close() // nothing can be done about it
	}
}
