package cli

import (
	"context"
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

func manifestCommand(p Process, shared *run.Options) *cobra.Command {
	var file, out, nix string
	var without []string
	var packages bool
	cmd := &cobra.Command{
		Use:   "manifest --out DIR [flags]",
		Short: "Resolve the toolset on this host, or as Nix did",
		Long: `manifest resolves a toolset from the files of this machine (the host backend):
it finds each command, installs the pinned Python packages, lays out the
browsers, and writes manifest.json last. DIR is replaced as a whole, in one
step.

With --nix FILE it resolves nothing: Nix has made the packages and the bin
directory, and FILE has their paths (nix/toolset.nix writes it). It checks the
toolset, looks whether each declared command is there, and writes manifest.json
and its compiled form into DIR. The Nix package is built with it.

It makes an environment for a cc-ci-run to be built with; it does not change
the one that this cc-ci-run runs scripts in.`,
		Example: `  cc-ci-run manifest --toolset toolset.toml --out build/toolset --without abra
  cc-ci-run manifest --toolset toolset.toml --packages | xargs apt-get install -y
  cc-ci-run manifest --toolset toolset.toml --nix resolved.json --out "$out/share/cc-ci-run"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("toolset: %w", err)
			}
			t, err := toolset.ParseToolset(file, data)
			if err != nil {
				return err
			}
			if packages {
				_, err := fmt.Fprintln(p.Stdout, strings.Join(t.Packages(), "\n"))
				return err
			}
			if out == "" {
				return fmt.Errorf("--out DIR is needed: where to put the environment")
			}
			var m *toolset.Manifest
			if nix != "" {
				m, err = resolvedByNix(t, nix, out)
			} else {
				m, err = resolvedHere(cmd.Context(), p, toolset.HostBuild{
					Toolset: t, Dir: filepath.Dir(file), Out: out, State: shared.State, Without: without,
				})
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(p.Stderr, "cc-ci-run: environment %.12s: %d commands in %s\n", m.Fingerprint(), len(m.CommandNames()), m.Bin)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "toolset", "toolset.toml", "the declaration")
	f.StringVar(&out, "out", "", "the `directory` to make")
	f.StringVar(&shared.State, "state", "", "state `directory` that runs write to (default: \"state\" beside --out)")
	f.StringSliceVar(&without, "without", nil, "leave out this `tool`; each run then says that it is absent")
	f.BoolVar(&packages, "packages", false, "only print the Debian packages that the toolset needs")
	f.StringVar(&nix, "nix", "", "write the manifest of what Nix resolved, according to this `file`")
	for _, other := range []string{"without", "state", "packages"} {
		cmd.MarkFlagsMutuallyExclusive("nix", other)
	}
	_ = cmd.MarkFlagDirname("out")
	_ = cmd.MarkFlagDirname("state")
	_ = cmd.MarkFlagFilename("toolset", "toml")
	_ = cmd.MarkFlagFilename("nix", "json")
	return cmd
}

func resolvedByNix(t *toolset.Toolset, file, out string) (*toolset.Manifest, error) {
	b, err := toolset.ReadNix(file)
	if err != nil {
		return nil, err
	}
	return b.Run(t, out)
}

func resolvedHere(ctx context.Context, p Process, b toolset.HostBuild) (*toolset.Manifest, error) {
	if b.State == "" {
		b.State = filepath.Join(filepath.Dir(filepath.Clean(b.Out)), "state")
	}
	b.Environ, b.Log = p.Environ, prefixed{p.Stderr}
	// An interrupted build ends in order, with what it started.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return b.Run(ctx)
}

// prefixed makes progress lines messages of cc-ci-run.
type prefixed struct{ w *os.File }

func (p prefixed) Write(b []byte) (int, error) {
	if _, err := fmt.Fprintf(p.w, "cc-ci-run: %s", b); err != nil {
		return 0, err
	}
	return len(b), nil
}
