package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/host"
	"cc-ci-run/internal/report"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/toolset"
)

// reportOptions are the flags of report.
type reportOptions struct {
	out, serve          string
	remote, noHost      bool
	recipeURL, buildURL string
}

// addLinks adds the flags for a report's links to a command that writes a report.
func (o *reportOptions) addLinks(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.recipeURL, "recipe-url", "", "link from the pages to commits: `URL` of a commit, with {recipe} and {revision} in it")
	f.StringVar(&o.buildURL, "build-url", "", "link from the pages to runs: `URL` of a run, with {recipe}, {revision}, {run} and {machine} in it")
}

// check says what is wrong with the flags.
func (o *reportOptions) check() error {
	for flag, url := range map[string]string{"recipe-url": o.recipeURL, "build-url": o.buildURL} {
		if err := report.CheckLink(url); err != nil {
			return fmt.Errorf("--%s %q: %w", flag, url, err)
		}
	}
	return nil
}

func reportCommand(p Process, shared *run.Options) *cobra.Command {
	var o reportOptions
	cmd := &cobra.Command{
		Use:   "report [flags]",
		Short: "Write what sweeps remember as pages for a browser, or serve them",
		Long: `report writes a directory of static HTML pages: which recipes fail, since when,
in which test and with what output; each recipe's last 30 runs, test by test;
the environments and what changed between them; parity, audits and the host's
health. The pages need no server and no scripts, and load nothing from other
places.

report writes only pages that changed, and removes the pages of recipes that are
gone. Files in the directory that report did not write stay.

With --serve, report serves the pages until Ctrl-C, and writes them anew
whenever a sweep has remembered something. The browser reloads a page every 15
seconds, unless the page's address ends with "?still". docs/report.md has more.`,
		Example: `  cc-ci-run report --out /srv/www/ci
  cc-ci-run report --serve 127.0.0.1:8080
  cc-ci-run report --out /srv/www/ci \
    --recipe-url 'https://git.example.org/recipes/{recipe}/commit/{revision}'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.out == "" && o.serve == "" {
				return errors.New("report: name a directory for the pages (--out DIR), or an address at which to serve them (--serve 127.0.0.1:8080)")
			}
			if o.remote && o.serve == "" {
				return errors.New("--serve-remote needs --serve")
			}
			if err := o.check(); err != nil {
				return err
			}
			m, err := toolset.ReadManifest(p.Manifest)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			s := p.reportSource(shared.StateDir(p.Environ, m.State), m, o)
			if o.serve == "" {
				return report.Write(ctx, s, o.out)
			}
			return p.serveReport(ctx, s, o)
		},
	}
	f := cmd.Flags()
	addState(cmd, shared)
	f.StringVar(&o.out, "out", "", "`directory` for the pages; report makes it if it does not exist")
	f.StringVar(&o.serve, "serve", "", "serve the pages at this `address`, for example 127.0.0.1:8080")
	f.BoolVar(&o.remote, "serve-remote", false, "allow --serve an address that other machines can reach; people there can read what tests print")
	f.BoolVar(&o.noHost, "no-host", false, "leave out the page about the host's health")
	o.addLinks(cmd)
	_ = cmd.MarkFlagDirname("out")
	return cmd
}

// reportSource is what a report is made from.
func (p Process) reportSource(dir state.Dir, m *toolset.Manifest, o reportOptions) report.Source {
	s := report.Source{
		State: dir, Git: m.Git(), Version: p.Version, Manifest: m,
		Status:    func(list []*sweep.Remembered) (sweep.Status, error) { return statusOf(dir, list) },
		RecipeURL: o.recipeURL, BuildURL: o.buildURL, Clock: time.Now, Zone: time.Local,
	}
	if !o.noHost {
		s.Host = func(ctx context.Context) (host.Report, error) {
			config, err := host.ReadConfig(host.ConfigFile, true, docker.Socket(m.Compile("").Set))
			if err != nil {
				return host.Report{}, err
			}
			return host.Look(ctx, host.Host{Config: config, Manifest: m, State: dir, Environ: p.Environ, ManifestFile: p.Manifest, Plan: p.Plan, Root: os.Geteuid() == 0, Light: true}), nil
		}
	}
	return s
}

// serveReport serves a report from a directory of its own, if none is named.
func (p Process) serveReport(ctx context.Context, s report.Source, o reportOptions) error {
	dir := o.out
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "cc-ci-run-report-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	return report.Serve(ctx, s, report.Serving{
		Dir: dir, Address: o.serve, Remote: o.remote,
		Ready:  func(url string) { exec.Tell(p.Stderr, "cc-ci-run: the report is at "+url+" (end with Ctrl-C)\n") },
		Failed: p.complain,
	})
}
