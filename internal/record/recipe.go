package record

import (
	"path/filepath"
	"slices"
	"strings"

	"cc-ci-run/internal/exec"
)

// Recipe is what a run is of: the first argument of run_recipe_ci.py, or of
// what is called as a sweep calls that (--recipes DIR RECIPE); or the script.
// Arguments of other scripts are theirs, and may be secret.
func Recipe(program string, args []string) string {
	if name, _ := recipe(program, args); name != "" {
		return name
	}
	return filepath.Base(program)
}

// recipe is what a recorded run is of.
func (r *Record) recipe() string {
	args := make([]string, len(r.Args))
	for i, arg := range r.Args {
		args[i] = unprinted(arg)
	}
	return Recipe(unprinted(r.Program), args)
}

// recipe is the recipe that a run is of, "" for a script that is not called as a
// runner is; and the folder of recipes that its arguments name.
func recipe(program string, args []string) (name, recipes string) {
	runner := filepath.Base(program) == "run_recipe_ci.py"
	if len(args) > 2 && args[0] == "--recipes" {
		runner, recipes, args = true, args[1], args[2:]
	} else if i := slices.Index(args, "--recipes"); runner && i > 0 && i+1 < len(args) && !slices.Contains(args[:i], "--") {
		recipes = args[i+1]
	}
	const longest = 255 // a folder's name (NAME_MAX)
	if runner && len(args) > 0 && args[0] != "" && len(args[0]) <= longest && !strings.HasPrefix(args[0], "-") && !strings.Contains(args[0], "/") {
		return args[0], recipes
	}
	return "", ""
}

// folder is what a run's revision is of: the recipe's folder, or the working
// directory if there is none.
func folder(program string, args []string, dir string) string {
	name, recipes := recipe(program, args)
	if name == "" {
		return dir
	}
	if recipes == "" {
		recipes = filepath.Join(filepath.Dir(program), "..", "recipes")
	}
	if !filepath.IsAbs(recipes) {
		recipes = filepath.Join(dir, recipes)
	}
	if path := filepath.Join(recipes, name); exec.Exists(path) {
		return path
	}
	return dir
}

// HowToStart says how a person gets an invoker to start a run of a recipe, of any if it is "".
func HowToStart(invoker, recipe string) string {
	switch invoker {
	case "drone":
		of := "a recipe's"
		if recipe != "" {
			of = recipe + "'s"
		}
		return "push to " + of + " repository"
	case "systemd":
		if recipe == "" {
			return "systemctl start nightly-sweep"
		}
		return "systemctl start nightly-sweep@" + recipe
	}
	if recipe == "" {
		recipe = "RECIPE"
	}
	return "cc-ci-run runner/run_recipe_ci.py " + recipe
}
