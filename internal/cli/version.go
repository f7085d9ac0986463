package cli

import (
	"runtime"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/toolset"
)

func versionCommand(p Process) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "version [flags]",
		Short:   "Show the version of cc-ci-run and of its environment",
		Example: "  cc-ci-run version\n  cc-ci-run version --output json | jq -r .fingerprint",
		Args:    noArguments,
		RunE:    func(*cobra.Command, []string) error { return p.version(out) },
	}
	out.addTo(cmd)
	return cmd
}

func (p Process) version(out output) error {
	v := struct {
		Version     string `json:"version"`
		Go          string `json:"go"`
		Manifest    string `json:"manifest"`
		Fingerprint string `json:"fingerprint"`
		Backend     string `json:"backend"`
	}{p.Version, runtime.Version(), p.Manifest, "", ""}
	m, missing := toolset.ReadManifest(p.Manifest)
	if missing == nil {
		v.Fingerprint, v.Backend = m.Fingerprint(), m.Backend
	}
	err := p.show(out, v, "cc-ci-run|"+v.Version, [][]string{
		{"go", v.Go}, {"manifest", v.Manifest}, {"fingerprint", v.Fingerprint}, {"backend", v.Backend},
	})
	if err == nil && missing != nil {
		p.complain(missing) // said, but no failure: the version is known
	}
	return err
}
