// Command gendocs writes cc-ci-run's man pages and shell completions below a
// directory, as packages install them below share/.
//
//	go run ./internal/cli/gendocs build/share
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra/doc"

	"cc-ci-run/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gendocs DIR")
		os.Exit(2)
	}
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

func generate(share string) error {
	root := cli.Root(cli.Process{Stdout: os.Stdout, Stderr: os.Stderr})
	man := filepath.Join(share, "man", "man1")
	if err := os.MkdirAll(man, 0o755); err != nil {
		return err
	}
	if err := doc.GenManTree(root, &doc.GenManHeader{Title: "CC-CI-RUN", Section: "1", Source: "cc-ci-run"}, man); err != nil {
		return err
	}
	// Where each shell looks for a completion below share/.
	for path, generate := range map[string]func(string) error{
		"bash-completion/completions/cc-ci-run":    func(f string) error { return root.GenBashCompletionFileV2(f, true) },
		"zsh/site-functions/_cc-ci-run":            root.GenZshCompletionFile,
		"fish/vendor_completions.d/cc-ci-run.fish": func(f string) error { return root.GenFishCompletionFile(f, true) },
	} {
		file := filepath.Join(share, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := generate(file); err != nil {
			return err
		}
	}
	return nil
}
