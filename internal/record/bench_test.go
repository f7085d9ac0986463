package record

import (
	"os"
	"testing"
	"time"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/state"
)

// What each part of a run's start costs, once warm.
func BenchmarkStart(b *testing.B) {
	p := testPlan()
	p.HostPaths = []string{"/bin/sh", "/usr/bin/env", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"}
	data := string(p.Encode())
	data = data[:env.PlanSize([]byte(data))]
	caller := append(os.Environ(), "HOME=/")
	e, _ := p.Environment(caller, "manual")
	r := New(time.Now(), p, e, caller, env.Invoker{Name: "manual"}, "script", "x.py", nil, false)
	dir := state.Dir(b.TempDir())
	if err := r.Write(dir); err != nil {
		b.Fatal(err)
	}
	here, _ := os.Getwd()
	for _, part := range []struct {
		name string
		run  func()
	}{
		{"plan", func() { _, _ = env.DecodePlan(data) }},
		{"environment", func() { p.Environment(caller, "manual") }},
		{"record", func() { New(time.Now(), p, e, caller, env.Invoker{Name: "manual"}, "script", "x.py", nil, false) }},
		{"record/state", func() { exec.Capture() }},
		{"record/surroundings", func() {
			exec.Surround("0::/", []string{"/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"}, exec.Pairs{{Name: "TMPDIR", Value: "/tmp"}})
		}},
		{"record/revision", func() { Revision(here) }},
		{"record/paths", func() {
			for _, path := range p.HostPaths {
				exec.Resolve(path)
			}
		}},
		{"json", func() { r.AppendJSON(nil) }},
		{"write", func() { _ = r.Write(dir) }},
	} {
		b.Run(part.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				part.run()
			}
		})
	}
}
