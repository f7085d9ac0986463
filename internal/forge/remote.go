package forge

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Remote is the URL of a git work tree's remote origin. Only the repository's own
// configuration counts.
func Remote(ctx context.Context, git, dir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, git, "-c", "safe.directory=*", "-C", dir, "config", "--local", "--get", "remote.origin.url")
	cmd.Env = []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/nonexistent", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 1 {
		return "", errors.New("its work tree has no remote named origin")
	}
	if err != nil {
		return "", fmt.Errorf("git config: %w", err)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}
