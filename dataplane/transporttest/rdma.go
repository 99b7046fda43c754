package transporttest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// RDMAInterface returns the network interface of the RDMA device that KHAMSIN_RDMA_DEV names. Without one the test is
// skipped, or fails where KHAMSIN_REQUIRE demands "rdma".
func RDMAInterface(tb testing.TB) string {
	tb.Helper()
	device := os.Getenv("KHAMSIN_RDMA_DEV")
	if device == "" {
		if slices.Contains(strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ","), "rdma") {
			tb.Fatal("no RDMA device, which KHAMSIN_REQUIRE demands: KHAMSIN_RDMA_DEV is not set")
		}
		tb.Skip("no RDMA device: KHAMSIN_RDMA_DEV is not set")
	}
	files, _ := filepath.Glob(filepath.Join("/sys/class/infiniband", device, "ports/1/gid_attrs/ndevs/*"))
	for _, file := range files {
		if name, err := os.ReadFile(file); err == nil { // places without an address cannot be read
			return strings.TrimSpace(string(name))
		}
	}
	tb.Fatalf("no address of device %s belongs to an interface", device)
	return ""
}
