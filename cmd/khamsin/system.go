package main

import (
	"log/slog"

	"github.com/khamsin-io/khamsin/perf"
	"github.com/khamsin-io/khamsin/vsync"
)

// systemFlags say which system a command joins. They may be empty.
type systemFlags struct {
	Interface  string `help:"Network interface; default: ISIS_NETWORK_INTERFACES, else the loopback."`
	Transport  string `default:"auto" enum:"${transports}" help:"How packets travel: ${transports}. auto: as the configuration says."`
	SystemName string `name:"system" help:"Name of the system; default: khamsin."`
	Config     string `type:"existingfile" placeholder:"FILE" help:"Configuration file; default: ISIS_CONFIG, else none."`
	KeyFile    string `type:"existingfile" placeholder:"FILE" help:"File with the system's key, 64 hexadecimal digits."`
}

// options returns the options of the system.
func (f *systemFlags) options(log *slog.Logger) ([]vsync.Option, error) {
	c, err := f.config()
	if err != nil {
		return nil, err
	}
	if err := perf.UseTransport(&c, f.Transport); err != nil {
		return nil, err
	}
	opts := []vsync.Option{vsync.WithConfig(c), vsync.WithLogger(log), vsync.WithStatus(vsync.StatusDir())}
	if f.Interface != "" {
		opts = append(opts, vsync.WithInterfaces(f.Interface))
	}
	if f.SystemName != "" {
		opts = append(opts, vsync.WithSystemName(f.SystemName))
	}
	if f.KeyFile != "" {
		opts = append(opts, vsync.WithSystemKey(vsync.KeyFile(f.KeyFile)))
	}
	return opts, nil
}

func (f *systemFlags) config() (vsync.Config, error) {
	if f.Config != "" {
		return vsync.ConfigFromFile(f.Config)
	}
	return vsync.ConfigFromEnv()
}
