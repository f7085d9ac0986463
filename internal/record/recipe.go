package record

import (
	"path/filepath"
	"strings"
)

// Recipe is what a run is of: the first argument of run_recipe_ci.py, or of
// what is called as a sweep calls that (--recipes DIR RECIPE); or the script.
// Arguments of other scripts are theirs, and may be secret.
func Recipe(program string, args []string) string {
	runner := filepath.Base(program) == "run_recipe_ci.py"
	if len(args) > 2 && args[0] == "--recipes" {
		runner, args = true, args[2:]
	}
	const longest = 255 // a folder's name (NAME_MAX)
	if runner && len(args) > 0 && args[0] != "" && len(args[0]) <= longest && !strings.HasPrefix(args[0], "-") && !strings.Contains(args[0], "/") {
		return args[0]
	}
	return filepath.Base(program)
}
