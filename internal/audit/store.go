package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/toolset"
)

// Write puts the report into the state directory: STATE/audits/ID.json.
func (r *Report) Write(dir state.Dir) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return dir.PutSynced(state.Audits, r.Run.ID+".json", append(data, '\n'), 0o644)
}

// Read reads the report that `cc-ci-run audit --report` wrote to a file.
func Read(path string) (*Report, error) {
	data, err := exec.ReadRegular(path, maxCost)
	if err != nil {
		return nil, err
	}
	return parse(path, data)
}

// parse reads the bytes of a report. path names its file in messages.
func parse(path string, data []byte) (*Report, error) {
	r := &Report{}
	if err := state.Decode(path, data, Schema, r); err != nil {
		return nil, err
	}
	if r.Schema < 1 {
		return nil, &state.Fault{Path: path, Is: "is not an audit's report (it has no schema)", Fix: "it is not used; remove it"}
	}
	return r, nil
}

// Limits of what [Newest] looks at.
const (
	maxOpened = 20_000
	maxCost   = 48 << 20 // bytes in memory, roughly
	maxWaste  = 48 << 20 // the same, of other users' files that are not used,
	costFile  = 32 << 10 // and of each of them
	costValue = 32       // of each value of the JSON
	maxFaults = 20
	headSize  = 16 << 10
)

// Newest reads the newest last reports of a state directory, all of them if
// last is 0; of one recipe if recipe is not "". Oldest first. Files that are
// no report, or are not believed, are passed over and named in skipped; of other
// users' files, only reports of runs by hand are believed.
func Newest(dir state.Dir, recipe string, last int) (reports []*Report, skipped []error, err error) {
	f, err := dir.Open(state.Audits)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	now := time.Now()
	names, faults, err := f.RunNames(".json", now)
	if err != nil {
		return nil, nil, err
	}
	opened, cost, waste, told := 0, 0, 0, 0
	buffer := make([]byte, headSize)
	named := string(state.AppendRecipe(nil, recipe))
	fault := func(err error) {
		if told++; told <= maxFaults {
			skipped = append(skipped, err)
		} else {
			faults++
		}
	}
	for i, name := range slices.Backward(names) { // names sort by time
		of, by := state.RunOf(name)
		if recipe != "" && of != "" && of != named {
			continue
		}
		uid, err := f.Owner(name)
		official := f.Official(uid)
		switch {
		case err != nil:
		case state.Future(name, now) && told >= maxFaults: // of very many, each is not read
			err = notYet(f.Path(name))
		case !official && by != "manual" && by != "":
			err = f.Foreign(name, uid)
		case !official && waste > maxWaste:
			err = fmt.Errorf("%s: is not looked at: newer files of other users are too many or too large", f.Path(name))
		}
		if err != nil {
			fault(err)
			continue
		}
		if opened++; opened > maxOpened || cost > maxCost {
			skipped = append(skipped, fmt.Errorf("%s: %d older reports are not read (--last N reads fewer)", f.Path(""), i+1))
			break
		}
		if recipe != "" && of == "" { // of an earlier cc-ci-run
			head, err := f.Peek(name, buffer)
			if err == nil && len(head) < len(buffer) && bytes.HasSuffix(bytes.TrimSpace(head), []byte("}")) && !bytes.Contains(head, []byte(strconv.Quote(recipe))) {
				if !official {
					waste, opened = waste+costFile, opened-1
				}
				continue
			}
		}
		r, spent, err := read(f, name)
		if err == nil && state.Future(name, now) {
			err = notYet(f.Path(name))
		}
		if err != nil && !official {
			waste, opened = waste+spent+costFile, opened-1
		} else {
			cost += spent
		}
		if err != nil {
			fault(err)
			continue
		}
		if recipe != "" && r.Run.Recipe != recipe {
			continue
		}
		reports = append(reports, r)
		if len(reports) == last {
			break
		}
	}
	if faults > 0 {
		skipped = append(skipped, fmt.Errorf("%s: %d more files are not used", f.Path(""), faults))
	}
	slices.Reverse(reports)
	return reports, skipped, nil
}

func notYet(path string) error {
	return &state.Fault{Path: path, Is: "is of a time that is yet to come", Fix: "it is not used; remove it"}
}

// read reads a report, if it is believed, and says what that costs.
func read(f *state.Folder, name string) (r *Report, cost int, err error) {
	data, uid, err := f.Read(name)
	if err == nil {
		cost = len(data) + costValue*state.Values(data)
		r, err = parse(f.Path(name), data)
	}
	if err == nil && !f.Official(uid) && r.Run.Invoker != "manual" {
		err = f.Foreign(name, uid)
	}
	return r, cost, err
}

// Total is what many runs executed.
type Total struct {
	Schema int     `json:"schema"`
	Runs   []Count `json:"runs"` // oldest first, of each recipe, invoker and environment

	Used       []TotalUse  `json:"used"`
	Missing    []TotalMiss `json:"missing"`
	Undeclared []TotalUse  `json:"undeclared"`
	Unused     []Unused    `json:"unused"` // by none of the runs
	Unreadable int         `json:"unreadable"`
	Omitted    int         `json:"omitted,omitempty"` // calls, see [Report]
}

// Count is how many runs there were of a kind.
type Count struct {
	Recipe      string `json:"recipe"`
	Invoker     string `json:"invoker"`
	Fingerprint string `json:"fingerprint"`
	Runs        int    `json:"runs"`
	Newest      string `json:"newest"` // id
}

// Where says in which runs something was.
type Where struct {
	Runs     int      `json:"runs"`
	Recipes  []string `json:"recipes"`
	Invokers []string `json:"invokers"`
}

// TotalUse is a [Use] of many runs; First is the earliest in any.
type TotalUse struct {
	Use
	Where
}

// TotalMiss is a [Miss] of many runs.
type TotalMiss struct {
	Miss
	Where
}

func (w *Where) add(r Run) {
	w.Runs++
	for _, s := range []struct {
		list *[]string
		name string
	}{{&w.Recipes, r.Recipe}, {&w.Invokers, r.Invoker}} {
		if i, found := slices.BinarySearch(*s.list, s.name); !found {
			*s.list = slices.Insert(*s.list, i, s.name)
		}
	}
}

// Merge makes one report of many, for the environment m: unused are its tools,
// and what it declares is no longer missing or undeclared.
func Merge(m *toolset.Manifest, reports []*Report) *Total {
	t := &Total{Schema: Schema, Runs: []Count{}, Used: []TotalUse{}, Missing: []TotalMiss{}, Undeclared: []TotalUse{}, Unused: []Unused{}}
	var all []Use
	used, undeclared, missing := map[string]int{}, map[string]int{}, map[string]int{} // where each is in its list
	for _, r := range reports {
		i := slices.IndexFunc(t.Runs, func(c Count) bool {
			return c.Recipe == r.Run.Recipe && c.Invoker == r.Run.Invoker && c.Fingerprint == r.Run.Fingerprint
		})
		if i < 0 {
			i = len(t.Runs)
			t.Runs = append(t.Runs, Count{Recipe: r.Run.Recipe, Invoker: r.Run.Invoker, Fingerprint: r.Run.Fingerprint})
		}
		t.Runs[i].Runs++
		t.Runs[i].Newest = r.Run.ID
		t.Unreadable += r.Unreadable
		t.Omitted += r.Omitted
		t.addUses(&t.Used, used, r.Used, r.Run)
		// What was fixed since is not to be fixed.
		t.addUses(&t.Undeclared, undeclared, slices.DeleteFunc(slices.Clone(r.Undeclared), func(u Use) bool { return m.MayExecute(u.Name) }), r.Run)
		for _, miss := range r.Missing {
			if _, declared := m.Command(miss.Name); declared {
				continue
			}
			i, ok := missing[miss.Name]
			if !ok {
				if len(t.Missing) >= maxListed {
					t.Omitted += miss.Times
					continue
				}
				i = len(t.Missing)
				missing[miss.Name] = i
				t.Missing = append(t.Missing, TotalMiss{Miss: Miss{Name: miss.Name, By: map[string]int{}, First: miss.First}})
			}
			total := &t.Missing[i]
			total.Times += miss.Times
			total.Looks += miss.Looks
			total.First = min(total.First, miss.First)
			total.Fix = miss.Fix // the newest
			addCounts(total.By, miss.By)
			total.add(r.Run)
		}
		all = append(all, r.Used...)
	}
	t.Unused = append(t.Unused, unused(m, all)...)
	byName := func(a, b string) int { return strings.Compare(a, b) }
	slices.SortFunc(t.Used, func(a, b TotalUse) int { return byName(a.Name, b.Name) })
	slices.SortFunc(t.Undeclared, func(a, b TotalUse) int { return byName(a.Name, b.Name) })
	slices.SortFunc(t.Missing, func(a, b TotalMiss) int { return byName(a.Name, b.Name) })
	return t
}

// addUses adds what a run executed to a list of t; places says where each is there.
func (t *Total) addUses(list *[]TotalUse, places map[string]int, uses []Use, run Run) {
	for _, u := range uses {
		key := u.Tool + "\x00" + u.Name
		i, ok := places[key]
		if !ok {
			if strings.Contains(u.Name, "/") && len(*list) >= maxListed {
				t.Omitted += u.Times
				continue
			}
			i = len(*list)
			places[key] = i
			*list = append(*list, TotalUse{Use: Use{Name: u.Name, Tool: u.Tool, By: map[string]int{}, First: u.First}})
		}
		total := &(*list)[i]
		total.Times += u.Times
		total.First = min(total.First, u.First)
		addCounts(total.By, u.By)
		total.add(run)
	}
}

func addCounts(to, from map[string]int) {
	for name, n := range from {
		count(to, name, n)
	}
}
