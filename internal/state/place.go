package state

import (
	_ "embed"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Place is a kind of files, and the directory of a state directory that they
// are in.
type Place string

// The places. places.json says more of each.
const (
	Runs      Place = "runs"
	Manifests Place = "manifests"
	Results   Place = "results"
	Audits    Place = "audits"
	Sweep     Place = "sweep"
	Recipes   Place = "sweep/recipes"
	Logs      Place = "sweep/logs"
	Running   Place = "sweep/running"
)

// Rule is what holds for a place. The table of them, places.json, is the only
// one: [Dir.Make] and [Dir.Check] read it here, and the NixOS module makes the
// directories from it.
//
// The owner of the state directory owns each place. A shared place is one in
// which the group may write: everybody's runs are recorded there. It is sticky,
// so that nobody removes or replaces another's files, and whoever reads there
// asks whose a file is. The other places are the owner's alone.
type Rule struct {
	Place  Place  `json:"place"` // "" is the state directory itself
	Mode   string `json:"mode"`  // octal, where people share the state directory
	MaxKiB int    `json:"max_kib"`
	What   string `json:"what"`
}

//go:embed places.json
var table []byte

// Rules are of all places, each after the one that it is in.
var Rules = sync.OnceValue(func() (rules []Rule) {
	if err := json.Unmarshal(table, &rules); err != nil {
		panic("internal/state/places.json: " + err.Error())
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

func (r Rule) mode() uint32 {
	mode, err := strconv.ParseUint(r.Mode, 8, 12)
	if err != nil {
		panic("internal/state/places.json: " + err.Error())
	}
	return uint32(mode)
}

func (r Rule) shared() bool { return r.mode()&unix.S_IWGRP != 0 }

// modeIn is the mode of a place in a state directory of mode top. A state
// directory is shared if its group or everybody may write there, or if it is
// set-group-ID, as the NixOS module makes it. In any other, nobody but the owner
// writes. Whom the state directory keeps out, the place keeps out.
func (r Rule) modeIn(top uint32) uint32 {
	mode := r.mode()
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
