package bpf
import ("testing";"errors";"github.com/cilium/ebpf")
func TestLoad(t *testing.T){ var o demuxObjects; if err:=loadDemuxObjects(&o,nil); err!=nil { var v *ebpf.VerifierError; errors.As(err,&v); t.Fatalf("%+v",v)}; o.Close(); f,err:=OpenFilter(); if err!=nil {t.Fatal(err)}; f.Close(); if err:=ProbeDemux(); err!=nil {t.Fatal(err)}; if err:=ProbeFilter(); err!=nil {t.Fatal(err)} }
