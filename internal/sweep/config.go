package sweep

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"cc-ci-run/internal/config"
	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
)

// ConfigName is the file of a recipes directory that says how to sweep it.
const ConfigName = "sweep.toml"

// Config is a sweep.toml. What it leaves out is zero.
//
//	recipes = ["gitea", "nextcloud"]   # which, in this order; all, by name, without it
//	jobs    = 2
//	timeout = "1h"                     # of one recipe
//	grace   = "30s"
//	max_age = "168h"                   # run what is unchanged, too, if it last passed longer ago
//	notify  = ["mail", "-s", "sweep", "ops@example.org"]   # told what is new after a sweep
//	skips   = "hold"                   # hold a recipe of which tests were skipped; or "allow"
//	[recipe.nextcloud]
//	timeout = "2h"
type Config struct {
	Recipes        []string
	Jobs           int
	Timeout, Grace time.Duration
	Timeouts       map[string]time.Duration // of single recipes
	MaxAge         time.Duration
	SkipsHold      bool
	SkipsHoldOf    map[string]bool // of single recipes
	Notify         []string        // command that is told what is new after a sweep
}

// form is a sweep.toml.
type form struct {
	Recipes []string `toml:"recipes"`
	Jobs    int      `toml:"jobs"`
	Timeout string   `toml:"timeout"`
	Grace   string   `toml:"grace"`
	MaxAge  string   `toml:"max_age"`
	Skips   string   `toml:"skips"`
	Notify  []string `toml:"notify"`
	Recipe  map[string]struct {
		Timeout string `toml:"timeout"`
		Skips   string `toml:"skips"`
	} `toml:"recipe"`
}

// maxConfig is more than a sweep.toml has, in bytes.
const maxConfig = 1 << 20

// readConfig reads a sweep.toml. What is no file is read only if a person names it, as
// <(…) of a shell is: in a directory of recipes it would be a mistake, or a trap.
func readConfig(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && filepath.Base(file) == ConfigName {
		return nil, fmt.Errorf("%s: is not a file: remove it", file)
	}
	var data []byte
	if info.Mode().IsRegular() {
		data, err = exec.ReadRegular(file, maxConfig+1) // does not wait, as a file of /proc may
	} else {
		data, err = os.ReadFile(file)
	}
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("%s: is larger than %d KiB, as no %s is", file, maxConfig>>10, ConfigName)
	}
	return data, err
}

// ReadConfig reads a sweep.toml for a directory of recipes. All mistakes are
// reported together, each with its line; a recipe that is not there is one.
func ReadConfig(file, recipes string) (*Config, error) {
	data, err := readConfig(file)
	if err != nil {
		return nil, err
	}
	var form form
	at, err := config.Decode(file, data, &form)
	if err != nil {
		return nil, err
	}
	all, err := Folders(recipes)
	if err != nil {
		return nil, err
	}
	known := func(key, name string) {
		if !slices.Contains(all, name) {
			at.Fail(key, "%q: no such recipe in %s%s", name, recipes, env.Suggest(name, all))
		}
	}

	c := &Config{Recipes: form.Recipes, Jobs: form.Jobs, Notify: form.Notify, Timeouts: map[string]time.Duration{}, SkipsHoldOf: map[string]bool{}}
	c.Timeout, c.Grace = at.Duration("timeout", form.Timeout, 0), at.Duration("grace", form.Grace, 0)
	c.MaxAge = at.Duration("max_age", form.MaxAge, 0)
	skips := func(key, value string) bool {
		if at.Has(key) && value != "hold" && value != "allow" {
			at.Fail(key, "%s = %q: write \"hold\" or \"allow\"", key, value)
		}
		return value == "hold"
	}
	c.SkipsHold = skips("skips", form.Skips)
	if at.Has("jobs") && form.Jobs < 1 {
		at.Fail("jobs", "jobs = %d: at least one", form.Jobs)
	}
	if at.Has("notify") && (len(form.Notify) == 0 || form.Notify[0] == "") {
		at.Fail("notify", "notify is empty: write a command and its arguments, or leave it out")
	}
	if at.Has("recipes") && len(form.Recipes) == 0 {
		at.Fail("recipes", "recipes is empty: leave it out for all of them")
	}
	for i, name := range form.Recipes {
		key := fmt.Sprintf("recipes[%d]", i)
		known(key, name)
		if slices.Contains(form.Recipes[:i], name) {
			at.Fail(key, "%q is named twice", name)
		}
	}
	for name, r := range form.Recipe {
		key := "recipe." + name
		known(key, name)
		if !at.Has(key+".timeout") && !at.Has(key+".skips") {
			at.Fail(key, "%s says nothing", key)
		}
		if at.Has(key + ".timeout") {
			c.Timeouts[name] = at.Duration(key+".timeout", r.Timeout, 0)
		}
		if at.Has(key + ".skips") {
			c.SkipsHoldOf[name] = skips(key+".skips", r.Skips)
		}
	}
	return c, at.Err()
}
