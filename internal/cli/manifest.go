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
	file, out, nix, state string
	without               []string
	packages              bool
}

func manifestCommand(p Process, shared *run.Options) *cobra.Command {
	var o manifestOptions
	cmd := &cobra.Command{
		Use:   "manifest --out DIR [flags]",
		Short: "Resolve the toolset on this host, or as Nix did",
		Long: `manifest resolves a toolset to files of this machine (the host backend).
manifest finds each command, installs the pinned Python packages, lays out the
browsers, and writes manifest.json last. The result replaces the whole of DIR,
in one step.

With --nix FILE, manifest resolves nothing: Nix has already made the packages
and the bin directory, and FILE, which nix/toolset.nix writes, has their paths.
manifest then checks the toolset and that each declared command exists, and
writes manifest.json and its compiled form into DIR. The build of the Nix
package uses --nix.

Each cc-ci-run runs scripts in the environment whose path the build linked into
it. So this cc-ci-run uses the result only if DIR is that environment's
directory.`,
		Example: `  cc-ci-run manifest --toolset toolset.toml --out build/toolset --without abra
  cc-ci-run manifest --toolset toolset.toml --packages | xargs apt install
  cc-ci-run manifest --nix resolved.json --out "$out/share/cc-ci-run"`,
		Args: noArguments,
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
	f.StringVar(&o.nix, "nix", "", "`file` with what Nix resolved: write the manifest of it")
	for _, other := range []string{"without", "state", "packages"} {
		cmd.MarkFlagsMutuallyExclusive("nix", other)
	}
	_ = cmd.MarkFlagDirname("out")
	_ = cmd.MarkFlagDirname("state")
	_ = cmd.MarkFlagFilename("toolset", "toml")
	_ = cmd.MarkFlagFilename("nix", "json")
	return cmd
}

func (p Process) manifest(ctx context.Context, o manifestOptions) error {
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
		return unread(err)
	}
	if o.out == "" {
		return errors.New("--out DIR is needed: where to put the environment")
	}
	var m *toolset.Manifest
	if o.nix != "" {
		m, err = resolvedByNix(t, o)
	} else {
		m, err = p.resolvedHere(ctx, t, o)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Stderr, "cc-ci-run: environment %.12s: %d commands in %s\n", m.Fingerprint(), len(m.CommandNames()), m.Bin)
	return nil
}

func resolvedByNix(t *toolset.Toolset, o manifestOptions) (*toolset.Manifest, error) {
	b, err := toolset.ReadNix(o.nix)
	if err != nil {
		return nil, err
	}
	return b.Run(t, o.out)
}

func (p Process) resolvedHere(ctx context.Context, t *toolset.Toolset, o manifestOptions) (*toolset.Manifest, error) {
	if o.state == "" {
		o.state = filepath.Join(filepath.Dir(filepath.Clean(o.out)), "state")
	}
	// An interrupted build ends in order, with what it started.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return toolset.HostBuild{
		Toolset: t, Dir: filepath.Dir(o.file), Out: o.out, State: o.state, Without: o.without,
		Environ: p.Environ, Log: prefixed{p.Stderr},
	}.Run(ctx)
}

// prefixed makes progress lines messages of cc-ci-run.
type prefixed struct{ w *os.File }

func (p prefixed) Write(b []byte) (int, error) {
	if _, err := fmt.Fprintf(p.w, "cc-ci-run: %s", b); err != nil {
		return 0, err
	}
	return len(b), nil
}
