package toolset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cc-ci-run/internal/debian"
	"cc-ci-run/internal/env"
)

// Stale says in one line how the environment changed since it was built, from
// what [env.Plan.Changed] found: the packages with their versions, then and now,
// and how many commands. nil if nothing changed.
func (m *Manifest) Stale(ctx context.Context, faults []env.Fault) error {
	if len(faults) == 0 {
		return nil
	}
	then := map[string]string{}
	fix := faults[0].Fix
	for _, f := range faults {
		if tool := m.ToolOf(f.What); tool != nil {
			for _, p := range tool.Packages {
				then[p.Name] = p.Version
			}
		}
	}
	names := make([]string, 0, len(then))
	for name := range then {
		names = append(names, name)
	}
	slices.Sort(names)
	now := debian.Versions(ctx, names)
	var packages []string
	for _, name := range names {
		if version := now[name]; version != then[name] {
			if version == "" {
				version = "not installed"
			}
			packages = append(packages, fmt.Sprintf("%s %s → %s", name, then[name], version))
		}
	}
	if n := len(packages); n > 4 {
		packages = append(packages[:3], fmt.Sprintf("and %d more packages", n-3))
	}
	what := fmt.Sprintf("%d commands", len(faults))
	if len(faults) == 1 {
		what = faults[0].What
	}
	return errors.New("the environment changed since it was built: " + strings.Join(append(packages, what), ", ") + ": " + fix)
}
