package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/run"
	"cc-ci-run/internal/toolset"
)

// manifestOptions are the flags of manifest.
type manifestOptions struct {
	file, out, compile string
	without            []string
	packages           bool
	state              string
}

func manifestCommand(p Process, shared *run.Options) *cobra.Command {
	var o manifestOptions
	cmd := &cobra.Command{
		Use:   "manifest --out DIR [flags]",
		Short: "Resolve the toolset on this host",
		Long: `manifest resolves a toolset to files of this machine (the host backend; under
Nix, the package resolves the toolset). manifest finds each command, installs
the pinned Python packages, lays out the browsers, and writes manifest.json
last. The result replaces the whole of DIR, in one step.

Each cc-ci-run runs scripts in the environment whose path the build linked into
it. So this cc-ci-run uses the result only if DIR is that environment's
directory.`,
		Example: `  cc-ci-run manifest --toolset toolset.toml --out build/toolset --without abra
  cc-ci-run manifest --toolset toolset.toml --packages | xargs apt-get install -y`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.state = shared.State
			return p.manifest(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.file, "toolset", "toolset.toml", "`file` with the declaration")
	f.StringVar(&o.out, "out", "", "`directory` to write the environment to")
	f.StringVar(&shared.State, "state", "", "state `directory` that runs write to (default: \"state\" beside --out)")
	f.StringSliceVar(&o.without, "without", nil, "leave out this `tool`; each run then prints that the tool is absent")
	f.BoolVar(&o.packages, "packages", false, "only print the Debian packages that the toolset needs")
	f.StringVar(&o.compile, "compile", "", "only compile this manifest `file` to the form that runs read, and write that form to stdout (the Nix package does so)")
	_ = cmd.MarkFlagDirname("out")
	_ = cmd.MarkFlagDirname("state")
	_ = cmd.MarkFlagFilename("toolset", "toml")
	return cmd
}

func (p Process) manifest(ctx context.Context, o manifestOptions) error {
	if o.compile != "" {
		m, err := toolset.ReadManifest(o.compile)
		if err != nil {
			return err
		}
		_, err = p.Stdout.Write(m.Compile(o.compile).Encode())
		return err
	}
	data, err := os.ReadFile(o.file)
	if err != nil {
		return fmt.Errorf("toolset: %w", err)
	}
	t, err := toolset.ParseToolset(o.file, data)
	if err != nil {
		return err
	}
	if o.packages {
		_, err := fmt.Fprintln(p.Stdout, strings.Join(t.Packages(), "\n"))
		return err
	}
	if o.out == "" {
		return errors.New("--out DIR is needed: where to put the environment")
	}
	if o.state == "" {
		o.state = filepath.Join(filepath.Dir(filepath.Clean(o.out)), "state")
	}
	// An interrupted build ends in order, with what it started.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	m, err := toolset.HostBuild{
		Toolset: t, Dir: filepath.Dir(o.file), Out: o.out, State: o.state, Without: o.without,
		Environ: p.Environ, Log: prefixed{p.Stderr},
	}.Run(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Stderr, "cc-ci-run: environment %.12s: %d commands in %s\n", m.Fingerprint(), len(m.CommandNames()), m.Bin)
	return nil
}

// prefixed makes progress lines messages of cc-ci-run.
type prefixed struct{ w *os.File }

func (p prefixed) Write(b []byte) (int, error) {
	if _, err := fmt.Fprintf(p.w, "cc-ci-run: %s", b); err != nil {
		return 0, err
	}
	return len(b), nil
}
