package state

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds are what a state directory may hold. Each run is a few files; what is
// beyond a bound is removed, the oldest first.
type Bounds struct {
	Age    time.Duration // of records, results, audits and logs
	Number int           // of runs, in each place
	MiB    int           // of all that
	Logs   int           // of runs in the logs of one recipe
}

// DefaultBounds are those that nobody set otherwise.
var DefaultBounds = Bounds{Age: 30 * 24 * time.Hour, Number: 10_000, MiB: 1 << 10, Logs: 10}

// Check refuses bounds by which the newest would not be kept.
func (b Bounds) Check() error {
	if b.Age < 0 || b.Number < 1 || b.MiB < 0 || b.Logs < 1 {
		return fmt.Errorf("--keep-runs %d, --keep-logs %d, --keep-size %d, --keep-for %s: the newest are always kept, so the first two must be at least 1, and none may be below 0", b.Number, b.Logs, b.MiB, b.Age)
	}
	return nil
}

// Expired is a file that is beyond a bound.
type Expired struct {
	Path string `json:"path"`
	Why  string `json:"why"`
	Size int64  `json:"size"`
}

// Left is what a state directory still holds. An entry is the files of one run in one place.
type Left struct {
	Entries int   `json:"entries"`
	Size    int64 `json:"size"`
}

// clockSlack is how far a clock may be set back before what was written then
// counts as written in the future.
const clockSlack = time.Minute

// stampForm is what names of records, results, audits and logs begin with.
const stampForm = "20060102T150405"

// Stamp is the time with which a file's name begins, zero for none.
func Stamp(name string) time.Time {
	if len(name) < len(stampForm) {
		return time.Time{}
	}
	t, _ := time.Parse(stampForm, name[:len(stampForm)])
	return t
}

// dated says whether a file's name begins with a time that has come.
func dated(name string, now time.Time) bool {
	stamp := Stamp(name)
	return !stamp.IsZero() && !stamp.After(now.Add(clockSlack))
}

// Future says whether a file's name claims that it was written after now.
func Future(name string, now time.Time) bool { return Stamp(name).After(now.Add(clockSlack)) }

// Stem is what the names of one run's files in one place have in common.
func Stem(name string) string {
	for _, suffix := range []string{".json", ".xml", ".log", ".current"} {
		if stem, ok := strings.CutSuffix(name, suffix); ok {
			return stem
		}
	}
	return name
}

// unit is all files of one run in one directory: names[from:to].
type unit struct {
	folder   *listed
	from, to int
	time     time.Time // zero: not known
	size     int64
	official bool // not another user's
	named    bool // with a time that has come
	keep     bool
	left     bool // by a process that was killed while it wrote
}

// listed is a directory that is looked through.
type listed struct {
	place Place
	below []string // names of the directory below the place
	path  string
	names []string
}

// Expire removes what is beyond the bounds, and says what that was. keep names
// runs whose files stay whatever their age: those of a place, of a directory
// below it ("" for none) and of a stem. With dry nothing is removed.
func (d Dir) Expire(b Bounds, now time.Time, keep func(p Place, below, stem string) bool, dry bool) (gone []Expired, left Left, err error) {
	for {
		var units []unit
		more := false
		for _, rule := range Rules()[1:] {
			found, again, e := d.units(rule.Place, now, keep)
			err = errors.Join(err, e)
			units, more = append(units, found...), more || again
		}
		removed := b.beyond(units, now)
		left = Left{Entries: len(units) - len(removed)}
		for _, u := range units {
			left.Size += u.size
		}
		for i := range removed {
			left.Size -= removed[i].unit.size
		}
		if dry {
			for _, r := range removed {
				gone = append(gone, r.expired()...)
			}
			return gone, left, err
		}
		done, e := d.remove(removed)
		gone, err = append(gone, done...), errors.Join(err, e)
		if !more || len(done) == 0 || err != nil { // else there were more files than a listing has
			return gone, left, err
		}
	}
}

type removal struct {
	unit
	why string
}

func (r removal) expired() (list []Expired) {
	for i, name := range r.folder.names[r.from:r.to] {
		e := Expired{Path: r.folder.path + "/" + name, Why: r.why}
		if i == 0 {
			e.Size = r.size
		}
		list = append(list, e)
	}
	return list
}

// beyond are the units to remove. Files of other users, those that claim to be of
// the future, and those without a time in their names, count as the oldest, so that
// nobody's crowd out others.
func (b Bounds) beyond(units []unit, now time.Time) (list []removal) {
	rank := func(u unit) int {
		switch {
		case u.keep:
			return 0
		case u.official && u.named:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(units, func(a, b unit) int { return cmp.Or(rank(a)-rank(b), b.time.Compare(a.time)) })
	numbers := map[string]int{}
	var size int64
	for _, u := range units {
		place, below := string(u.folder.place), u.folder.path
		why := ""
		switch {
		case u.keep:
		case u.left:
			why = "its writing was never ended"
		case !u.time.IsZero() && now.Sub(u.time) > b.Age:
			why = fmt.Sprintf("is older than %s", days(b.Age))
		case len(u.folder.below) > 0 && numbers[below] >= b.Logs:
			why = fmt.Sprintf("there are %d newer logs of the recipe", b.Logs)
		case numbers[place] >= b.Number:
			why = fmt.Sprintf("there are %d newer ones", b.Number)
		case size+u.size > int64(b.MiB)<<20:
			why = fmt.Sprintf("with newer ones it is more than %d MiB", b.MiB)
		}
		if why != "" {
			list = append(list, removal{u, why})
			continue
		}
		size += u.size
		numbers[place]++
		numbers[below]++
	}
	return list
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}

// remove removes the files of units, each only if it is not a directory that
// holds something, or if it was set aside.
func (d Dir) remove(list []removal) (gone []Expired, err error) {
	var f *Folder
	var of *listed
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	slices.SortStableFunc(list, func(a, b removal) int { return strings.Compare(a.folder.path, b.folder.path) })
	for _, r := range list {
		if of != r.folder {
			if f != nil {
				f.Close()
			}
			var e error
			if f, e = d.Open(r.folder.place, r.folder.below...); e != nil {
				return gone, errors.Join(err, e)
			}
			of = r.folder
		}
		failed := false
		for _, name := range r.folder.names[r.from:r.to] {
			switch e := f.Remove(name); {
			case errors.Is(e, unix.ENOTEMPTY) && isAside(name):
				if e = f.removeAll(name); errors.Is(e, fs.ErrPermission) {
					e = fmt.Errorf("%w: run `sudo cc-ci-run prune`", e)
				}
				if e != nil {
					err, failed = errors.Join(err, e), true
				}
			case errors.Is(e, unix.ENOTEMPTY): // no file of ours
				failed = true
			case e != nil:
				err, failed = errors.Join(err, e), true
			}
		}
		if !failed {
			gone = append(gone, r.expired()...)
		}
	}
	return gone, err
}

// units looks through a place. more says that there are more files than a
// listing has.
func (d Dir) units(p Place, now time.Time, keep func(Place, string, string) bool) (list []unit, more bool, err error) {
	f, err := d.Open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	list, more, err = f.units(&listed{place: p, path: f.path}, now, func(stem string) bool { return keep(p, "", stem) })
	if p != Logs || err != nil {
		return list, more, err
	}
	recipes, again, err := f.names(func(name string) bool { return !isLeft(name) })
	more = more || again
	for _, name := range recipes {
		below, e := f.Folder(name)
		if e != nil { // not a directory: nobody's log
			continue
		}
		found, again, e := below.units(&listed{place: p, below: []string{name}, path: below.path}, now, func(stem string) bool { return keep(p, name, stem) })
		below.Close()
		list, more, err = append(list, found...), more || again, errors.Join(err, e)
	}
	return list, more, err
}

// expires are the places, and the directories in those of Logs, of which each file
// expires. Of others only what was left there does.
func (of *listed) expires() bool {
	return of.place == Runs || of.place == Results || of.place == Audits || len(of.below) > 0
}

// isLeft says whether a file was set aside, or was being written when a process was
// killed.
func isLeft(name string) bool { return strings.HasPrefix(name, ".") || isAside(name) }

func isAside(name string) bool {
	was, damaged := strings.CutSuffix(name, damagedSuffix)
	return damaged && len(was) > len(stampForm) && !Stamp(was[len(was)-len(stampForm):]).IsZero() ||
		strings.HasPrefix(name, ".") && strings.HasSuffix(name, asideSuffix)
}

func (f *Folder) units(of *listed, now time.Time, keep func(stem string) bool) (list []unit, more bool, err error) {
	of.names, more, err = f.names(func(name string) bool { return of.expires() || isLeft(name) })
	for i := 0; i < len(of.names); {
		u := unit{folder: of, from: i, official: true, named: dated(of.names[i], now)}
		if u.named {
			u.time = Stamp(of.names[i])
		}
		stem := Stem(of.names[i])
		for ; i < len(of.names) && Stem(of.names[i]) == stem; i++ {
			var s unix.Stat_t
			if unix.Fstatat(f.fd, of.names[i], &s, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue
			}
			u.size += max(s.Size, s.Blocks*512)
			u.official = u.official && f.ours(int(s.Uid))
			if at := changed(s, now); !u.named && at.After(u.time) {
				u.time = at
			}
		}
		u.to = i
		writing := strings.HasPrefix(stem, ".") && !isAside(stem)
		u.left = writing && now.Sub(u.time) > writeLimit
		u.keep = writing && !u.left || keep(stem)
		list = append(list, u)
	}
	if of.expires() {
		f.keepNewest(list, now)
	}
	return list, more, err
}

// changed is when a file was written or set aside, zero if both claim to be yet to
// come.
func changed(s unix.Stat_t, now time.Time) (last time.Time) {
	for _, t := range []unix.Timespec{s.Mtim, s.Ctim} {
		if at := time.Unix(t.Unix()); at.After(last) && !at.After(now) {
			last = at
		}
	}
	return last
}

// writeLimit is more than the writing of one file takes.
const writeLimit = 24 * time.Hour

// keepNewest keeps the newest run of each invoker, whose name is the end of the
// stem, and of those without: a directory never loses its last.
func (f *Folder) keepNewest(list []unit, now time.Time) {
	kept := map[string]bool{}
	for i := len(list) - 1; i >= 0; i-- {
		u := &list[i]
		name := u.folder.names[u.from]
		if !u.official || !dated(name, now) {
			continue
		}
		if _, invoker := RunOf(name); !kept[invoker] {
			kept[invoker], u.keep = true, true
		}
	}
}

// RunOf is what a file's name tells of its run, "" for what it does not tell: names
// are TIME-PID-RECIPE-INVOKER, with the recipe as [AppendRecipe] writes it. They
// were TIME-PID-INVOKER, and before that TIME-PID.
func RunOf(name string) (recipe, invoker string) {
	if len(name) < len(stampForm) || name[8] != 'T' {
		return "", ""
	}
	_, run, _ := strings.Cut(Stem(name), "-")
	_, run, _ = strings.Cut(run, "-")
	end := strings.LastIndexByte(run, '-')
	return run[:max(end, 0)], run[end+1:]
}

// longestRecipe is how many bytes of a file's name are a recipe's: together with
// what is written beside the file while a run lasts, the name stays below the 143
// bytes that the strictest file system allows.
const longestRecipe = 64

// AppendRecipe appends a recipe's name as names of files have it: escaped by
// percent signs, and cut. Two long names may become one, so whoever finds a file by
// it asks the file.
func AppendRecipe(b []byte, recipe string) []byte {
	const hex = "0123456789ABCDEF"
	end := len(b) + longestRecipe
	for i := 0; i < len(recipe) && len(b) < end; i++ {
		switch c := recipe[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b[:min(len(b), end)]
}
