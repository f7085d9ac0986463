package host

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"cc-ci-run/internal/config"
)

// ConfigFile says what must hold on a host. The NixOS modules write it
// (nix/modules/host.nix), each module its own part.
const ConfigFile = "/etc/cc-ci-run/host.toml"

// Config is what must hold.
type Config struct {
	// Timeout is the time limit of each check.
	Timeout time.Duration
	// AllowFailed are units that may have failed, and why.
	AllowFailed map[string]string
	// Running are units that must be active.
	Running []string
	// Oneshots are services that must have run, and succeeded.
	Oneshots []string
	// Timers must be active. The value is the longest time between two of its
	// starts; 0 for no limit.
	Timers map[string]time.Duration
	// Units are services whose environment is looked at.
	Units map[string]Unit
	// Endpoints must answer.
	Endpoints []Endpoint
	// MinFree and MinInodes are how much must be left on the file system of
	// the state directory, in bytes and in files.
	MinFree, MinInodes uint64
	// Docker is the socket of the docker daemon, "" to leave it out. Swarm says
	// that recipes are deployed there, for which the daemon must be a manager of
	// an active swarm.
	Docker string
	Swarm  bool
	// Sweep is the sweep's service, Parity the invokers to compare.
	Sweep  string
	Parity [2]string
}

// Unit is what a service's environment must be.
type Unit struct {
	// Program is what ExecStart= begins with; "" for any.
	Program string
	// Environment is all of Environment=. Values with a "%" are systemd's to
	// fill in, and not compared.
	Environment map[string]string
}

// stemRE is a unit's name without its suffix; of a template only an instance
// can be looked at (systemd.unit(5)).
var stemRE = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?$`)

// Endpoint is a URL and how it must answer.
type Endpoint struct {
	URL     string        `toml:"url"`
	Status  int           `toml:"status"`   // 200 if it is left out
	MinDays int           `toml:"min_days"` // that its certificate must still be valid; 14 if it is left out
	Timeout time.Duration `toml:"-"`        // 0: Config's
}

// Default is what must hold on a host without a file: that of the NixOS
// modules with all of them enabled, as far as it can be known without them.
// socket is that of the docker daemon, by the toolset's declaration.
func Default(socket string) *Config {
	return &Config{
		Timeout:     10 * time.Second,
		AllowFailed: map[string]string{"nightly-sweep.service": "a held recipe is the sweep's result"},
		Running:     []string{"docker.service", "drone-runner-exec.service"},
		Timers:      map[string]time.Duration{"nightly-sweep.timer": 26 * time.Hour},
		MinFree:     1 << 30, MinInodes: 10_000,
		Docker: socket, Swarm: true,
		Sweep:  "nightly-sweep.service",
		Parity: [2]string{"drone", "systemd"},
	}
}

// form is a host.toml.
type form struct {
	Timeout     string            `toml:"timeout"`
	AllowFailed map[string]string `toml:"allow_failed"`
	Running     []string          `toml:"running"`
	Oneshots    []string          `toml:"oneshots"`
	Timers      map[string]struct {
		MaxAge string `toml:"max_age"`
	} `toml:"timer"`
	Units map[string]struct {
		Program     string            `toml:"program"`
		Environment map[string]string `toml:"environment"`
	} `toml:"unit"`
	Endpoints []struct {
		Endpoint
		Limit string `toml:"timeout"`
	} `toml:"endpoint"`
	State struct {
		MinFree   uint64 `toml:"min_free_mib"`
		MinInodes uint64 `toml:"min_free_inodes"`
	} `toml:"state"`
	Docker *string `toml:"docker"`
	Swarm  *bool   `toml:"swarm"`
	Sweep  *string `toml:"sweep"`
}

// ReadConfig reads a host.toml. What it leaves out is Default's. If there is
// no file and may be none, all is. All mistakes are reported together.
func ReadConfig(file string, mayLack bool, socket string) (*Config, error) {
	c := Default(socket)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && mayLack {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	var f form
	at, err := config.Decode(file, data, &f)
	if err != nil {
		return nil, err
	}
	c.Timeout = at.Duration("timeout", f.Timeout, c.Timeout)
	c.takeUnits(at, f)
	c.takeEndpoints(at, f)
	if at.Has("state.min_free_mib") {
		c.MinFree = f.State.MinFree << 20
	}
	if at.Has("state.min_free_inodes") {
		c.MinInodes = f.State.MinInodes
	}
	if f.Docker != nil {
		if *f.Docker != "" && !filepath.IsAbs(*f.Docker) {
			at.Fail("docker", "docker = %q is not an absolute path", *f.Docker)
		}
		c.Docker = *f.Docker
	}
	if f.Swarm != nil {
		c.Swarm = *f.Swarm
	}
	if f.Sweep != nil {
		c.Sweep = *f.Sweep
	}
	return c, at.Err()
}

// takeUnits takes what a file says of units and timers.
func (c *Config) takeUnits(at *config.File, f form) {
	named := func(key, name string, suffixes ...string) {
		for _, s := range suffixes {
			if stem, ok := strings.CutSuffix(name, s); ok && stemRE.MatchString(stem) {
				return
			}
		}
		at.Fail(key, "%q is not a unit's name (NAME%s)", name, strings.Join(suffixes, ", NAME"))
	}
	if f.AllowFailed != nil {
		c.AllowFailed = f.AllowFailed
	}
	for name, why := range c.AllowFailed {
		if strings.TrimSpace(why) == "" {
			at.Fail("allow_failed."+name, "allow_failed: %s: say why it may fail", name)
		}
	}
	if f.Running != nil {
		c.Running = f.Running
	}
	for i, name := range c.Running {
		named(fmt.Sprintf("running[%d]", i), name, ".service", ".socket", ".mount", ".target", ".path", ".swap", ".timer", ".slice", ".scope", ".device", ".automount")
	}
	c.Oneshots = f.Oneshots
	for i, name := range c.Oneshots {
		named(fmt.Sprintf("oneshots[%d]", i), name, ".service")
	}
	if len(f.Timers) > 0 || at.Has("timer") {
		c.Timers = map[string]time.Duration{}
	}
	for name, t := range f.Timers {
		key := "timer." + name
		named(key, name, ".timer")
		c.Timers[name] = at.Duration(key+".max_age", t.MaxAge, 0)
	}
	c.Units = map[string]Unit{}
	for name, u := range f.Units {
		named("unit."+name, name, ".service")
		c.Units[name] = Unit{u.Program, u.Environment}
	}
}

// takeEndpoints takes what a file says of endpoints.
func (c *Config) takeEndpoints(at *config.File, f form) {
	for i, e := range f.Endpoints {
		key := fmt.Sprintf("endpoint[%d]", i)
		if u, err := url.Parse(e.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			at.Fail(key+".url", "endpoint: %q is not a URL of http or https", e.URL)
		}
		if !at.Has(key + ".status") {
			e.Status = 200
		}
		if e.Status < 100 || e.Status > 599 {
			at.Fail(key+".status", "endpoint: status = %d is none of HTTP's", e.Status)
		}
		if !at.Has(key + ".min_days") {
			e.MinDays = 14
		}
		if e.MinDays < 0 || e.MinDays > 3650 {
			at.Fail(key+".min_days", "endpoint: min_days = %d is not from 0 to 3650", e.MinDays)
		}
		e.Timeout = at.Duration(key+".timeout", e.Limit, 0)
		c.Endpoints = append(c.Endpoints, e.Endpoint)
	}
}
