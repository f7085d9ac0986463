package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/forge"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/plaintext"
	"cc-ci-run/internal/report"
	"cc-ci-run/internal/sweep"
)

// This file shows a sweep's verdicts at the commits of a Gitea. A status that cannot be set
// is a note: it changes no verdict and no exit status.

// statusOptions are the flags about statuses of commits.
type statusOptions struct{ url, token string }

func (o *statusOptions) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.url, "status-url", "", "show each run's verdict at its commit: `URL` of a Gitea or Forgejo, or of a recipe's repository there, with {recipe} in it")
	f.StringVar(&o.token, "status-token", "", "`file` with a token of --status-url that may write to repositories")
}

// forge is nil if no flag is set.
func (o statusOptions) forge() (*forge.Forge, error) {
	if o.url == "" && o.token == "" {
		return nil, nil
	}
	if o.url == "" || o.token == "" {
		return nil, errors.New("--status-url and --status-token go together: write both, or neither")
	}
	token, err := readToken("token for commit statuses", o.token)
	if err != nil {
		return nil, err
	}
	f, err := forge.New(o.url, token)
	if err != nil {
		return nil, fmt.Errorf("--status-url: %w", err)
	}
	return f, nil
}

var stateOf = map[sweep.Verdict]forge.State{sweep.Promote: forge.Success, sweep.Pass: forge.Success, sweep.Hold: forge.Failure, sweep.Error: forge.Error}

// statusesLimit is how long a slow forge may take for all statuses.
const statusesLimit = 5 * time.Minute

// showStatuses sets a status of the commit of each result that is of a run.
func (p Process) showStatuses(ctx context.Context, o sweep.Options, t told, results []sweep.Result, note func(string)) {
	if t.forge == nil {
		return
	}
	runs, err := runsOf(o, results)
	if err != nil {
		note(fmt.Sprintf("no commit was given a status: %v", err))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statusesLimit) // no Ctrl-C ends ctx
	defer cancel()
	var folders []string
	for i, run := range runs {
		if strings.HasPrefix(run.Revision, "tree-") {
			folders = append(folders, run.recipe)
			continue
		}
		err := p.showStatus(ctx, o, t, run)
		if err != nil && (errors.Is(err, forge.ErrUnreachable) || ctx.Err() != nil) {
			note(fmt.Sprintf("%d commits were not given a status: %v", len(runs)-i, err))
			break
		}
		if err != nil {
			note(fmt.Sprintf("%s: its commit was not given a status: %v", run.recipe, err))
		}
	}
	if len(folders) > 0 {
		note("no status for recipes that are folders without a commit of their own: " + strings.Join(folders, ", "))
	}
}

// runOf is the run of a recipe.
type runOf struct {
	recipe string
	sweep.Past
}

// runsOf are the runs from which the verdicts come, as they are remembered.
func runsOf(o sweep.Options, results []sweep.Result) (list []runOf, err error) {
	verdicts := map[string]sweep.Result{}
	var names []string
	for _, r := range results {
		if stateOf[r.Verdict] != "" && r.Revision != "" {
			verdicts[r.Recipe] = r
			names = append(names, r.Recipe)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	m, err := memory.Open(o.State, o.Git, memory.Plain)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	known, err := sweep.Recall(m, names...)
	for _, k := range known {
		// A verdict without a run says nothing about the commit: for example, the ERROR if no
		// machine took the recipe. A dispatcher's verdict has the machine's name after run.Why.
		if r, run := verdicts[k.Recipe()], k.State.Run; run != nil && run.Verdict == r.Verdict && run.Revision == r.Revision && strings.HasPrefix(r.Why, run.Why) {
			list = append(list, runOf{k.Recipe(), *run})
		}
	}
	return list, err
}

func (p Process) showStatus(ctx context.Context, o sweep.Options, t told, run runOf) error {
	remote := ""
	if !t.forge.Given() {
		var err error
		if remote, err = forge.Remote(ctx, o.Git, filepath.Join(o.Recipes, run.recipe)); err != nil {
			return err
		}
	}
	repository, err := t.forge.Repository(run.recipe, remote)
	if err != nil {
		return err
	}
	return t.forge.Show(ctx, repository, run.Revision, forge.Status{
		State: stateOf[run.Verdict], Context: "cc-ci-run/" + run.recipe, Description: plaintext.Brief(run.Why, 140),
		TargetURL: report.Fill(t.links.buildURL, run.recipe, run.Revision, run.ID, run.Machine),
	})
}
