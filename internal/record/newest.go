package record

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cc-ci-run/internal/state"
)

// ErrNone is for an invoker that left no record.
var ErrNone = errors.New("no record")

// Newest is [Runs.Newest], of one invoker.
func Newest(dir state.Dir, invoker, recipe string) (r *Record, passedOver []error, err error) {
	runs, err := Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer runs.Close()
	return runs.Newest(invoker, recipe)
}

// Newest finds the newest record of an invoker; of one recipe, see [Recipe], if
// recipe is not "". It believes a record
//
//   - of drone or systemd, if the file is the state directory's owner's, for whom
//     Drone and the timer run, or root's;
//   - of a person also if the record names the file's owner as its user;
//   - if it is of no time that is yet to come.
//
// Newer files that are passed over are named in passedOver: what cannot be read,
// is damaged, or is not believed.
func (runs *Runs) Newest(invoker, recipe string) (r *Record, passedOver []error, err error) {
	s := runs.search(invoker, recipe)
	r, _ = s.newest()
	if s.more > 0 {
		s.faults = append(s.faults, fmt.Errorf("%s: %d more files are not used", runs.path, s.more))
	}
	if r != nil {
		return r, s.faults, nil
	}
	of := ""
	if recipe != "" {
		of = " of " + recipe
	}
	if s.unlooked {
		return nil, s.faults, fmt.Errorf("%w of a run%s by %s in %s; of the records whose names lack the recipe or the invoker, only the newest %d were opened, and %d of other users: start a run, or remove old ones (cc-ci-run prune)", ErrNone, of, invoker, runs.path, maxLooked, maxForeign)
	}
	return nil, s.faults, fmt.Errorf("%w of a run%s by %s in %s: start one (%s)", ErrNone, of, invoker, runs.path, HowToStart(invoker, recipe))
}

// Limits of a search. maxLooked is how many files are opened of those whose names do
// not tell the invoker or the recipe: more than a night has, and few enough to be looked
// through at once. An earlier cc-ci-run wrote such names. Of users other than the state
// directory's owner there are fewer, and their files have a limit of their own, so that
// nobody's crowd out the owner's.
const (
	batch      = 1024 // files that are looked at together
	maxLooked  = 10_000
	maxForeign = 1000
	maxRead    = 32 << 20 // bytes of one user's files
	maxFaults  = 5
	shortHead  = 1 << 10
	headSize   = 16 << 10 // most records are shorter
)

// search is a Newest under way.
type search struct {
	*Runs
	invoker, recipe string
	// looks and foreignLooks are how many more files may be opened to find out what
	// their names do not tell, and unlooked says that there were more.
	looks, foreignLooks int
	unlooked            bool
	readOf              map[int]int // bytes, of each user's files
	faults              []error
	more                int // faults that are only counted
}

func (runs *Runs) search(invoker, recipe string) *search {
	return &search{Runs: runs, invoker: invoker, recipe: recipe, looks: maxLooked, foreignLooks: maxForeign, more: runs.left}
}

func (s *search) fault(err error) {
	if len(s.faults) < maxFaults {
		s.faults = append(s.faults, err)
	} else {
		s.more++
	}
}

// newest gives the newest record that is wanted, and the name of its file.
func (s *search) newest() (*Record, string) {
	for to := len(s.names); to > 0; to -= batch {
		from := max(0, to-batch)
		may := s.peek(from, to)
		for i, name := range slices.Backward(s.names[from:to]) {
			if !may[i] {
				continue
			}
			if r, err := s.read(name); err != nil {
				s.fault(err)
			} else if r != nil {
				return r, name
			}
		}
	}
	return nil, ""
}

// peek says which of the files from one name on may be wanted.
func (s *search) peek(from, to int) []bool {
	may := make([]bool, to-from)
	for i := range slices.Backward(may) {
		recipe, _ := state.RunOf(s.names[from+i])
		known := s.invokers[from+i] != "" && (s.recipe == "" || recipe != "")
		may[i] = known || s.mayLook(s.names[from+i])
	}
	named := string(state.AppendRecipe(nil, s.recipe))
	w := writer{}
	w.quote(printable(s.recipe))
	mention := bytes.Trim(w.b, `\"`) // without the quotes, which may be a longer path's
	workers := runtime.GOMAXPROCS(0)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			buffer := make([]byte, headSize)
			for i := w; i < len(may); i += workers {
				recipe, _ := state.RunOf(s.names[from+i])
				if !may[i] || s.recipe != "" && recipe != "" && recipe != named {
					may[i] = false
					continue
				}
				invoker := s.invokerOf(from+i, buffer)
				may[i] = invoker == "" || (s.invoker == "" || invoker == s.invoker) && (s.recipe == "" || recipe != "" || s.mentions(from+i, mention, buffer))
			}
		})
	}
	all.Wait()
	return may
}

// mayLook says whether a file may be opened to find out what its name does not tell.
func (s *search) mayLook(name string) bool {
	if s.looks == 0 {
		s.unlooked = true
		return false
	}
	left := &s.looks
	if uid, _ := s.folder.Owner(name); !s.folder.Official(uid) {
		left = &s.foreignLooks
	}
	if *left == 0 {
		s.unlooked = true
		return false
	}
	*left--
	return true
}

// invokerOf is the invoker of a file, by its name or by its beginning. There may be
// very many, so each is looked at once, and briefly. "" is a file that has
// to be read: if only to say what is wrong with it.
func (runs *Runs) invokerOf(i int, buffer []byte) string {
	if runs.invokers[i] != "" {
		return runs.invokers[i]
	}
	invoker := ""
	for _, size := range []int{shortHead, headSize} {
		if invoker != "" {
			break
		}
		head, err := runs.folder.Peek(runs.names[i], buffer[:size])
		if err != nil {
			return ""
		}
		_, after, _ := bytes.Cut(head, []byte(`"invoker"`))
		_, after, _ = bytes.Cut(after, []byte(`"name"`))
		if parts := bytes.SplitN(after, []byte{'"'}, 3); len(parts) == 3 {
			invoker = string(parts[1])
		}
	}
	runs.invokers[i] = invoker
	return invoker
}

// mentions says whether a record may be of the recipe that is looked for.
func (s *search) mentions(i int, mention, buffer []byte) bool {
	head, err := s.folder.Peek(s.names[i], buffer)
	return err != nil || len(head) == len(buffer) || bytes.Contains(head, mention)
}

// read reads a record, nil if it is of something else.
func (s *search) read(name string) (*Record, error) {
	path := s.folder.Path(name)
	future := state.Future(name, s.now)
	if future && len(s.faults) >= maxFaults { // of very many, each is not read
		return nil, notYet(path)
	}
	uid, err := s.folder.Owner(name)
	if err != nil {
		return nil, err
	}
	official := s.folder.Official(uid)
	if !official && s.invoker != "manual" {
		return nil, s.folder.Foreign(name, uid)
	}
	if s.readOf[uid] >= maxRead {
		return nil, fmt.Errorf("%s: is not looked at: newer files of user %d have more than %d MiB", path, uid, maxRead>>20)
	}
	data, uid, err := s.folder.Read(name)
	if s.readOf == nil {
		s.readOf = map[int]int{}
	}
	s.readOf[uid] += len(data)
	if err != nil {
		return nil, err
	}
	r, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	if r.Invoker.Name != s.invoker || s.recipe != "" && r.recipe() != s.recipe {
		return nil, nil
	}
	if future || r.Time.After(s.now.Add(time.Minute)) {
		return nil, notYet(path)
	}
	users := strings.Fields(r.Process.UID)
	if !official && (len(users) == 0 || users[len(users)-1] != strconv.Itoa(uid) || r.ID+".json" != name) {
		return nil, &state.Fault{Path: path, Is: fmt.Sprintf("names another user or another ID than its file, which belongs to user %d", uid), Fix: "it is not used; remove it"}
	}
	return r, nil
}

func notYet(path string) error {
	return &state.Fault{Path: path, Is: "is of a time that is yet to come", Fix: "it is not used; remove it"}
}

// File is the name of the file of an invoker's newest record, "" for none.
func (runs *Runs) File(invoker string) string {
	s := runs.search(invoker, "")
	s.looks = math.MaxInt // nobody waits
	_, name := s.newest()
	return name
}
