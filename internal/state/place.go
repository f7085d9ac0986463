package state

import (
	_ "embed"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Place is a kind of files, and the directory of a state directory that they
// are in.
type Place string

// The places. places.txt says more of each.
const (
	Runs      Place = "runs"
	Manifests Place = "manifests"
	Results   Place = "results"
	Audits    Place = "audits"
	Sweep     Place = "sweep"
	Recipes   Place = "sweep/recipes"
	Memory    Place = "sweep.git"
	Logs      Place = "sweep/logs"
	Running   Place = "sweep/running"
)

// Rule is what holds for a place. The table of them, places.txt, is the only
// one: [Dir.Make] and [Dir.Check] read it here, and the NixOS module makes the
// directories from it.
//
// The owner of the state directory owns each place. A shared place is one in
// which the group may write: everybody's runs are recorded there. It is sticky,
// so that nobody removes or replaces another's files, and whoever reads there
// asks whose a file is. The other places are the owner's alone.
type Rule struct {
	Place  Place
	Mode   uint32 // where people share the state directory
	MaxKiB int    // of one file that is read
}

//go:embed places.txt
var table string

// Rules are of the state directory itself and of all places, each after the one
// that it is in. A line of the table is: place, mode, largest file in KiB, and what
// is there.
var Rules = sync.OnceValue(func() (rules []Rule) {
	for line := range strings.Lines(table) {
		w := strings.Fields(line)
		mode, err := strconv.ParseUint(w[1], 8, 12)
		size, err2 := strconv.Atoi(w[2])
		if err != nil || err2 != nil {
			panic("internal/state/places.txt: " + line)
		}
		rules = append(rules, Rule{Place(w[0]), uint32(mode), size})
	}
	return rules
})

func (p Place) rule() Rule {
	rules := Rules()
	return rules[slices.IndexFunc(rules, func(r Rule) bool { return r.Place == p })]
}

const (
	othersWrite = unix.S_IWGRP | unix.S_IWOTH
	special     = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX
)

func (r Rule) shared() bool { return r.Mode&unix.S_IWGRP != 0 }

// modeIn is the mode of a place in a state directory of mode top. A state
// directory is shared if its group or everybody may write there, or if it is
// set-group-ID, as the NixOS module makes it. In any other, nobody but the owner
// writes. Whom the state directory keeps out, the place keeps out.
func (r Rule) modeIn(top uint32) uint32 {
	mode := r.Mode
	if top&(othersWrite|unix.S_ISGID) == 0 {
		mode &^= othersWrite | special
	}
	if r.shared() {
		mode |= top & unix.S_IWOTH
	}
	mode &^= unix.S_ISGID &^ top
	for _, who := range []uint32{0o070, 0o007} {
		if top&who == 0 {
			mode &^= who
		}
	}
	return mode
}

// parts are the names of the directories that lead to a place.
func (p Place) parts() []string { return strings.Split(string(p), "/") }
