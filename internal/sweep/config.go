package sweep

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-multierror"

	"cc-ci-run/internal/config"
	"cc-ci-run/internal/env"
)

// ConfigName is the file of a recipes directory that says how to sweep it.
const ConfigName = "sweep.toml"

// Config is a sweep.toml. What it leaves out is zero.
//
//	recipes = ["gitea", "nextcloud"]   # which, in this order; all, by name, without it
//	jobs    = 2
//	timeout = "1h"                     # of one recipe
//	grace   = "30s"
//	[recipe.nextcloud]
//	timeout = "2h"
type Config struct {
	Recipes        []string
	Jobs           int
	Timeout, Grace time.Duration
	Timeouts       map[string]time.Duration // of single recipes
}

// ReadConfig reads a sweep.toml for a directory of recipes. All mistakes are
// reported together, each with its line; a recipe that is not there is one.
func ReadConfig(file, recipes string) (*Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var form struct {
		Recipes []string `toml:"recipes"`
		Jobs    int      `toml:"jobs"`
		Timeout string   `toml:"timeout"`
		Grace   string   `toml:"grace"`
		Recipe  map[string]struct {
			Timeout string `toml:"timeout"`
		} `toml:"recipe"`
	}
	at, errs := config.Decode(file, data, &form)
	if at == nil {
		return nil, errs
	}
	fail := func(key, format string, args ...any) {
		errs = multierror.Append(errs, at.Errorf(key, format, args...))
	}
	duration := func(key, text string) time.Duration {
		if !at.Has(key) {
			return 0
		}
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			fail(key, "%s = %q is not a length of time (like \"1h30m\")", key, text)
		}
		return d
	}
	all, err := recipesIn(recipes)
	if err != nil {
		return nil, err
	}
	known := func(key, name string) {
		if !slices.Contains(all, name) {
			fail(key, "%q: no such recipe in %s%s", name, recipes, env.Suggest(name, all))
		}
	}

	c := &Config{Recipes: form.Recipes, Jobs: form.Jobs, Timeouts: map[string]time.Duration{}}
	c.Timeout, c.Grace = duration("timeout", form.Timeout), duration("grace", form.Grace)
	if at.Has("jobs") && form.Jobs < 1 {
		fail("jobs", "jobs = %d: at least one", form.Jobs)
	}
	if at.Has("recipes") && len(form.Recipes) == 0 {
		fail("recipes", "recipes is empty: leave it out for all of them")
	}
	for i, name := range form.Recipes {
		key := fmt.Sprintf("recipes[%d]", i)
		known(key, name)
		if slices.Contains(form.Recipes[:i], name) {
			fail(key, "%q is named twice", name)
		}
	}
	for name, r := range form.Recipe {
		key := "recipe." + name
		known(key, name)
		if !at.Has(key + ".timeout") {
			fail(key, "%s says nothing", key)
		}
		c.Timeouts[name] = duration(key+".timeout", r.Timeout)
	}
	config.Sort(errs)
	return c, errs.ErrorOrNil()
}
