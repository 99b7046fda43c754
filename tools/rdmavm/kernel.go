package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// kernel is an unpacked kernel.
type kernel struct {
	version string
	dir     string // holds vmlinuz, and lib/modules/version
}

// fetchKernel returns the kernel that a package of Debian depends on, from the cache or else from Debian.
func fetchKernel(ctx context.Context, cache, meta string) (kernel, error) {
	name, err := kernelPackage(ctx, meta)
	if err != nil {
		return kernel{}, err
	}
	k := kernel{version: strings.TrimPrefix(name, "linux-image-")}
	dir := filepath.Join(cache, "kernel-"+k.version)
	if _, err := os.Stat(dir); err == nil {
		k.dir = dir
		return k, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return kernel{}, err
	}
	if k.dir, err = os.MkdirTemp(cache, "unfinished-"); err != nil {
		return kernel{}, err
	}
	fmt.Printf("rdmavm: fetching %s into %s\n", name, dir)
	err = k.unpack(ctx, name)
	if err == nil {
		err = os.Rename(k.dir, dir) // complete from the first moment that others see it
	}
	if err != nil {
		return kernel{}, errors.Join(fmt.Errorf("kernel %s: %w", name, err), os.RemoveAll(k.dir))
	}
	k.dir = dir
	return k, nil
}

// kernelPackage returns the package with the kernel itself.
func kernelPackage(ctx context.Context, meta string) (string, error) {
	out, err := command(ctx, "", "apt-cache", "depends", meta)
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(`Depends: (linux-image-[0-9]\S*)`).FindStringSubmatch(out)
	if found == nil {
		return "", fmt.Errorf("package %s depends on no kernel: run apt-get update, or use --kernel", meta)
	}
	return found[1], nil
}

// unpack fetches the package and keeps of it what a machine may need.
func (k kernel) unpack(ctx context.Context, name string) error {
	if _, err := command(ctx, k.dir, "apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", name); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(k.dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download left %d packages: %v", len(debs), err)
	}
	if _, err := command(ctx, k.dir, "dpkg-deb", "-x", debs[0], "all"); err != nil {
		return err
	}
	modules := "lib/modules"
	if _, err := os.Stat(filepath.Join(k.dir, "all", modules)); err != nil {
		modules = "usr/lib/modules"
	}
	if err := errors.Join(
		os.Remove(debs[0]),
		os.Rename(filepath.Join(k.dir, "all/boot/vmlinuz-"+k.version), filepath.Join(k.dir, "vmlinuz")),
		os.MkdirAll(filepath.Join(k.dir, "lib"), 0o755),
		os.Rename(filepath.Join(k.dir, "all", modules), filepath.Join(k.dir, "lib/modules")),
		os.RemoveAll(filepath.Join(k.dir, "all")),
	); err != nil {
		return err
	}
	_, err = command(ctx, k.dir, "depmod", "-b", k.dir, k.version)
	return err
}

// modulePaths returns the files of modules and of all that they need, below lib/modules/version.
func (k kernel) modulePaths(names ...string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(k.dir, "lib/modules", k.version, "modules.dep"))
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{} // by name of the module: its file and those it needs
	for line := range strings.Lines(string(text)) {
		file, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		base, _, _ := strings.Cut(filepath.Base(file), ".ko")
		needs[strings.ReplaceAll(base, "-", "_")] = append([]string{file}, strings.Fields(rest)...)
	}
	seen := map[string]bool{}
	var paths []string
	for _, name := range names {
		for _, file := range needs[name] { // a module that is not there is built in, or its user will say so
			if !seen[file] {
				seen[file] = true
				paths = append(paths, file)
			}
		}
	}
	return paths, nil
}

// command runs a program in a directory and returns what it printed.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: run make deps as root", err)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out), nil
}
