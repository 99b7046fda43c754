package main

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// guestInit is the guest's first process. immutable: embedded
//
//go:embed guest/init
var guestInit []byte

// moduleNames returns the kernel's modules that guests may load.
func moduleNames() []string {
	return []string{
		"rdma_rxe", "rdma_ucm", "virtio_net", "virtio_pci", "9p", "9pnet_virtio", "crc32_generic", "crc32c_generic",
		"veth", "dummy", "bridge", "sch_netem", "sch_ingress", "cls_bpf", "act_bpf", "nf_tables", "nft_numgen",
		"nft_compat", "nft_chain_nat", "tun",
	}
}

// programNames returns this machine's programs that guests have. What they are linked with comes along.
func programNames() []string { return []string{"ip", "tc", "rdma", "nft"} }

// buildRoot writes the guests' memory file system.
func buildRoot(ctx context.Context, to string, k kernel) (err error) {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	w := &archive{w: z, have: map[string]bool{}}
	w.file("/init", 0o755, guestInit)
	w.file("/etc/passwd", 0o644, []byte("root:x:0:0::/:/bin/sh\n"))
	w.file("/etc/hosts", 0o644, []byte("127.0.0.1 localhost\n"))
	w.file("/etc/libibverbs.d/rxe.driver", 0o644, []byte("driver rxe\n"))
	w.programs(ctx)
	w.modules(k)
	w.trailer()
	if w.err != nil {
		return fmt.Errorf("memory file system: %w", w.err)
	}
	return z.Close()
}

// programs adds programs, the library of verbs with its driver, and what these are linked with.
func (w *archive) programs(ctx context.Context) {
	var files []string
	for _, name := range programNames() {
		path, err := exec.LookPath(name)
		if err != nil {
			fmt.Printf("rdmavm: guests will have no %s: %v\n", name, err)
			continue
		}
		w.copy("/usr/sbin/"+name, path)
		files = append(files, path)
	}
	verbs, _ := filepath.Glob("/usr/lib/*/libibverbs.so.1")
	drivers, _ := filepath.Glob("/usr/lib/*/libibverbs/librxe-rdmav*.so")
	if len(verbs) == 0 || len(drivers) == 0 {
		w.fail(fmt.Errorf("libibverbs or its driver for rxe is not installed: run make deps as root"))
	}
	busybox, err := exec.LookPath("busybox")
	w.fail(err)
	w.copy("/bin/busybox", busybox)
	files = slices.Concat(files, verbs, drivers, []string{busybox})
	for _, path := range files {
		w.copy(path, path)
		out, _ := command(ctx, "", "ldd", path) // it fails for what is linked with nothing
		for _, library := range regexp.MustCompile(`/\S+\.so\S*`).FindAllString(out, -1) {
			w.copy(library, library)
		}
	}
	// What test binaries are linked with, and open.
	for _, pattern := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/*/libc.so.6", "/lib/*/libdl.so.2",
		"/lib/*/libpthread.so.0", "/lib/*/libresolv.so.2", "/lib/*/libgcc_s.so.1"} {
		found, _ := filepath.Glob(pattern)
		for _, library := range found {
			w.copy(library, library)
		}
	}
}

// modules adds the kernel's modules and the index that modprobe reads.
func (w *archive) modules(k kernel) {
	paths, err := k.modulePaths(moduleNames()...)
	w.fail(err)
	base := filepath.Join(k.dir, "lib/modules", k.version)
	var index strings.Builder
	text, err := os.ReadFile(filepath.Join(base, "modules.dep"))
	w.fail(err)
	plain := strings.NewReplacer(".ko.xz", ".ko") // busybox does not unpack
	for line := range strings.Lines(string(text)) {
		file, _, _ := strings.Cut(line, ":")
		if slices.Contains(paths, file) {
			index.WriteString(plain.Replace(line))
		}
	}
	at := "/lib/modules/" + k.version + "/"
	w.file(at+"modules.dep", 0o644, []byte(index.String()))
	for _, path := range paths {
		b, err := os.ReadFile(filepath.Join(base, path))
		if err == nil && strings.HasSuffix(path, ".xz") {
			b, err = unxz(b)
		}
		w.fail(err)
		w.file(at+plain.Replace(path), 0o644, b)
	}
	for _, name := range []string{"modules.builtin", "modules.order", "modules.alias", "modules.symbols"} {
		if b, err := os.ReadFile(filepath.Join(base, name)); err == nil {
			w.file(at+name, 0o644, b)
		}
	}
}

func unxz(b []byte) ([]byte, error) {
	cmd := exec.Command("xz", "-dc")
	cmd.Stdin = bytes.NewReader(b)
	return cmd.Output()
}

// archive writes a cpio archive in the form that kernels read ("newc"). The first failure stays, and ends all work.
type archive struct {
	w    io.Writer
	have map[string]bool
	ino  int
	err  error
}

func (w *archive) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// Kinds of entries.
const (
	kindDir  = 0o040000
	kindFile = 0o100000
)

// file adds a file, and the directories it is in, unless it is there already.
func (w *archive) file(path string, mode int, content []byte) {
	if w.err != nil || w.have[path] {
		return
	}
	w.dir(filepath.Dir(path))
	w.entry(path, kindFile|mode, content)
}

func (w *archive) dir(path string) {
	if path == "/" || w.have[path] {
		return
	}
	w.dir(filepath.Dir(path))
	w.entry(path, kindDir|0o755, nil)
}

// copy adds a file of this machine.
func (w *archive) copy(path, from string) {
	if w.have[path] {
		return
	}
	b, err := os.ReadFile(from)
	w.fail(err)
	w.file(path, 0o755, b)
}

func (w *archive) entry(path string, mode int, content []byte) {
	w.have[path] = true
	w.ino++
	w.record(strings.TrimPrefix(path, "/"), mode, content)
}

// record writes a header of 13 numbers of 8 hexadecimal digits, the name and the content, each filled up to words.
func (w *archive) record(name string, mode int, content []byte) {
	if w.err != nil {
		return
	}
	var b bytes.Buffer
	b.WriteString("070701")
	for _, n := range []int{w.ino, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(&b, "%08x", n)
	}
	b.WriteString(name)
	b.WriteByte(0)
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	pad()
	b.Write(content)
	pad()
	_, err := w.w.Write(b.Bytes())
	w.fail(err)
}

func (w *archive) trailer() { w.record("TRAILER!!!", 0, nil) }
