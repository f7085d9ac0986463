package cli

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/run"
	"cc-ci-run/internal/runs"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/toolset"
)

// completeFrom offers words of the state directory. What cannot be read there offers
// nothing: a completion has no place for messages.
func completeFrom(p Process, shared *run.Options, most int, words func(l *runs.List, begun string) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		const as = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		if len(args) >= most {
			return nil, as
		}
		m, err := toolset.ReadManifest(p.Manifest)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		l, err := runs.Open(shared.StateDir(p.Environ, m.State), m.Git())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer l.Close()
		return slices.DeleteFunc(words(l, begun), func(word string) bool { return !strings.HasPrefix(word, begun) }), as
	}
}

// offered is how many IDs are offered at once.
const offered = 100

func completeRuns(p Process, shared *run.Options) cobra.CompletionFunc {
	return completeFrom(p, shared, 1, func(l *runs.List, begun string) []string { return l.IDs(begun, offered) })
}

// completeRecipes offers recipes that were run.
func completeRecipes(p Process, shared *run.Options) cobra.CompletionFunc {
	return completeFrom(p, shared, unlimited, func(l *runs.List, _ string) []string { return l.Recipes() })
}

// completeEnvironments offers what `env diff` takes. Of IDs, which are many, it
// offers those that somebody began to write.
func completeEnvironments(p Process, shared *run.Options) cobra.CompletionFunc {
	return completeFrom(p, shared, 2, func(l *runs.List, begun string) []string {
		words, _ := l.Kept()
		for i := range words {
			words[i] = words[i][:min(len(words[i]), 12)]
		}
		words = append(words, l.Recipes()...)
		if begun != "" {
			words = append(words, l.IDs(begun, offered)...)
		}
		return words
	})
}

// completeFolders offers the recipes in a directory.
func completeFolders(recipes *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
		entries, err := os.ReadDir(*recipes)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		for _, e := range entries {
			if name := e.Name(); (e.IsDir() || e.Type() == os.ModeSymlink) && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "__") && !slices.Contains(args, name) {
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeRemembered offers the remembered recipes, and after a recipe the IDs of its
// runs.
func (p Process) completeRemembered(shared *run.Options) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) (list []string, _ cobra.ShellCompDirective) {
		r, _, err := p.memoryOf(shared)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer r.Close()
		if len(args) == 0 {
			known, _ := sweep.Recall(r)
			for _, k := range known {
				list = append(list, k.Recipe())
			}
		} else if h, err := historyOf(r, args[0]); err == nil && len(args) == 1 {
			list = h.IDs()
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}
