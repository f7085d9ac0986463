// Package toolsettest is for tests: it has a small toolset without a mistake, Tools
// and Tables in this order.
package toolsettest

// Tools are its tools.
const Tools = `[[tool]]
name     = "git"
nix      = "git"
debian   = "git"
commands = ["git"]
why      = "tests clone"

[[tool]]
name     = "awk"
nix      = "gawk"
debian   = "gawk"
commands = ["awk"]
files    = { awk = "/usr/bin/gawk" }
why      = "tests use it"

`

// Tables are all but its tools.
const Tables = `[python]
nix          = "python3"
debian       = "python3"
commands     = ["python3"]
packages     = ["pytest"]
requirements = "requirements.txt"
why          = "the tests"

[browsers]
nix    = "browsers"
debian = "chromium"
host   = "/usr/bin/chromium"
why    = "pages"

[environment]
pass    = ["HOME", "X_*"]
require = ["HOME"]
[environment.only]
drone = ["DRONE"]
[environment.default]
TERM = "dumb"
[environment.set]
SHELL = "{bin}/bash"
[environment.nix]
TZDIR = "{tzdata}/share/zoneinfo"

[process]
umask  = "0022"
nofile = 1024
core   = 0

[host]
debian = "dash"
paths  = ["/bin/sh"]
`
