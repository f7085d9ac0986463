package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/toolset"
)

func envCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	var explain bool
	cmd := &cobra.Command{
		Use:   "env [flags]",
		Short: "Show the environment: tools, variables, process state",
		Long: `env shows the environment that a run started from here would have. With
--explain, env shows for each variable, the caller's included, whether it
reaches the run, and which rule decides that.

env does not show the values of passed variables, because they may be secrets
and the output may become part of a log; "cc-ci-run exec env" shows them.`,
		Example: `  cc-ci-run env
  cc-ci-run env --explain
  cc-ci-run env diff
  cc-ci-run env --output json | jq -r '.tools[].name'`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			m, err := toolset.ReadManifest(p.Manifest)
			if err != nil {
				return err
			}
			invoker := env.DetectInvoker(p.Environ, exec.IsTerminal(0))
			e, missing := m.Compile(p.Manifest).Environment(p.Environ, invoker.Name)
			if explain {
				err = p.explain(out, e)
			} else {
				err = p.describe(out, m, e)
			}
			if err == nil && missing != nil {
				p.complain(missing) // shown all the same; a run would not start
				return exec.Status{Code: exec.StatusFailed}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&explain, "explain", false, "show whether each variable reaches a run, and the rule that decides it")
	out.addTo(cmd)
	cmd.AddCommand(envDiffCommand(p, shared))
	return cmd
}

// shownVariable is a variable without the value, if that is the caller's.
type shownVariable struct {
	Name    string      `json:"name"`
	Verdict env.Verdict `json:"verdict"`
	Value   *string     `json:"value,omitempty"`
	Rule    string      `json:"rule"`
}

func shown(e env.Environment, dropped bool) []shownVariable {
	list := []shownVariable{}
	for _, v := range e {
		s := shownVariable{Name: strings.ToValidUTF8(v.Name, "\uFFFD"), Verdict: v.Verdict, Rule: v.Why()}
		switch v.Verdict {
		case env.Dropped:
			if !dropped {
				continue
			}
		case env.Passed:
		default:
			s.Value = &v.Value
		}
		list = append(list, s)
	}
	return list
}

func (s shownVariable) text() string {
	if s.Value == nil {
		return "(" + string(s.Verdict) + ")"
	}
	return *s.Value
}

func (p Process) explain(out output, e env.Environment) error {
	list := shown(e, true)
	rows := make([][]string, len(list))
	for i, s := range list {
		rows[i] = []string{string(s.Verdict), fmt.Sprintf("%.60s", strings.Trim(fmt.Sprintf("%+q", s.Name), `"`)), s.Rule, s.text()}
	}
	// Fixed first, dropped last; by name within.
	order := []string{string(env.Fixed), string(env.Given), string(env.Default), string(env.Passed), string(env.Dropped)}
	slices.SortStableFunc(rows, func(a, b []string) int { return slices.Index(order, a[0]) - slices.Index(order, b[0]) })
	return p.show(out, list, "VERDICT|VARIABLE|RULE|VALUE", rows)
}

func (p Process) describe(out output, m *toolset.Manifest, e env.Environment) error {
	if out == "json" {
		return p.show(out, map[string]any{
			"fingerprint": m.Fingerprint(), "manifest": p.Manifest, "backend": m.Backend, "state": m.State,
			"path": m.Bin, "interpreter": m.Interpreter, "tools": m.Tools, "python": m.Python, "browsers": m.Browsers,
			"absent": m.Absent, "shadowed": m.Shadowed, "variables": shown(e, false), "process": m.Process, "host": m.Host,
		}, "", nil)
	}
	var absent []string
	for _, a := range m.Absent {
		absent = append(absent, a.Name)
	}
	rows := [][]string{
		{"fingerprint", m.Fingerprint()},
		{"manifest", p.Manifest},
		{"backend", m.Backend},
		{"state", m.State},
		{"PATH", m.Bin},
		{"interpreter", m.Interpreter},
		{"browsers", m.Browsers.Path + " " + versions(m.Browsers.Packages)},
		{"process", fmt.Sprintf("umask %s, nofile %d, core %d, no_new_privs %t", m.Process.Umask, m.Process.NoFile, m.Process.Core, m.Process.NoNewPrivs)},
		{"host paths", strings.Join(m.Host.Paths, " ")},
		{"absent", strings.Join(absent, " ")},
	}
	if err := p.table(p.Stdout, "ENVIRONMENT|", rows); err != nil {
		return err
	}
	rows = nil
	for _, t := range m.Tools {
		rows = append(rows, []string{t.Name, versions(t.Packages), strings.Join(names(t.Commands), " ")})
	}
	rows = append(rows, []string{"python", m.Python.Version + " with " + versions(m.Python.Packages), strings.Join(names(m.Python.Commands), " ")})
	fmt.Fprintln(p.Stdout)
	if err := p.table(p.Stdout, "TOOL|VERSION|COMMANDS", rows); err != nil {
		return err
	}
	rows = nil
	for _, s := range shown(e, false) {
		rows = append(rows, []string{s.Name, s.text()})
	}
	fmt.Fprintln(p.Stdout)
	return p.table(p.Stdout, "VARIABLE|VALUE", rows)
}

func versions(packages []toolset.Package) string {
	var list []string
	for _, p := range packages {
		list = append(list, strings.TrimSpace(p.Name+" "+p.Version))
	}
	return strings.Join(list, ", ")
}

func names(commands []toolset.Command) []string {
	var list []string
	for _, c := range commands {
		list = append(list, c.Name)
	}
	return list
}
