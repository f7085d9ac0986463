package launch

import (
	"os"
	"testing"

	"cc-ci-run/internal/exec"
)

// What each part of a run's start costs, once warm.
func BenchmarkStart(b *testing.B) {
	p := testPlan()
	p.HostPaths = []string{"/bin/sh", "/usr/bin/env", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"}
	data := string(p.Encode())
	caller := append(os.Environ(), "HOME=/")
	e, _ := p.Environment(caller, "manual")
	r := NewRecord(p, e, caller, Invoker{Name: "manual"}, "script", "x.py", nil, false)
	state := b.TempDir()
	if err := r.Write(state); err != nil {
		b.Fatal(err)
	}
	dir, _ := os.Getwd()
	for _, part := range []struct {
		name string
		run  func()
	}{
		{"plan", func() { _, _ = DecodePlan(data) }},
		{"environment", func() { p.Environment(caller, "manual") }},
		{"record", func() { NewRecord(p, e, caller, Invoker{Name: "manual"}, "script", "x.py", nil, false) }},
		{"record/state", func() { exec.Capture() }},
		{"record/revision", func() { Revision(dir) }},
		{"record/paths", func() {
			for _, path := range p.HostPaths {
				exec.Resolve(path)
			}
		}},
		{"json", func() { r.AppendJSON(nil) }},
		{"write", func() { _ = r.Write(state) }},
	} {
		b.Run(part.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				part.run()
			}
		})
	}
}
