package main

import (
	"log/slog"
	"os"

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

// Names of environment variables that vsync reads.
const (
	configVariable = "ISIS_CONFIG"
	statusVariable = "KHAMSIN_STATUS"
)

// options returns the options of the system. A configuration file that is named is one that the environment names:
// other variables change it.
func (f *systemFlags) options(log *slog.Logger) ([]vsync.Option, error) {
	if f.Config != "" {
		if err := os.Setenv(configVariable, f.Config); err != nil {
			return nil, err
		}
	}
	c, err := vsync.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	if err := perf.UseTransport(&c, f.Transport); err != nil {
		return nil, err
	}
	opts := []vsync.Option{vsync.WithConfig(c), vsync.WithLogger(log)}
	if c.StatusDir == "" && os.Getenv(statusVariable) == "" {
		opts = append(opts, vsync.WithStatus(vsync.StatusDir()))
	}
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
