package sweep

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/toolset"
)

// Prune removes what the state directory holds beyond the bounds, as each sweep
// does at its end. It never removes the newest record, result and audit of each
// invoker, the newest log of each recipe and the log of the run that made its
// revision canonical or that holds it, and the manifests that a record or a
// canonical revision refers to. manifest is the file of this environment. With
// dry it only says what it would remove.
func Prune(dir state.Dir, git string, b state.Bounds, manifest string, dry bool) ([]state.Expired, state.Left, error) {
	if err := b.Check(); err != nil {
		return nil, state.Left{}, err
	}
	if os.Geteuid() != 0 && !dry {
		if err := mayWrite(dir, "prune", "who alone removes what others left there"); err != nil {
			return nil, state.Left{}, err
		}
	}
	s := &store{Dir: dir}
	if err := s.recall(git, memory.Plain); err != nil {
		return nil, state.Left{}, err
	}
	defer s.close()
	return s.expire(b, manifest, dry)
}

// expire removes what is beyond the bounds. What is remembered says what stays.
func (s *store) expire(b state.Bounds, manifest string, dry bool) ([]state.Expired, state.Left, error) {
	dir := s.Dir
	logs := map[string]bool{} // "RECIPE" or "RECIPE/STEM", as directories and files are called
	environments := map[string]bool{}
	unknown := false // whether a state could name any environment
	s.each(func(r *Remembered) {
		s, file := r.State, url.PathEscape(r.Recipe())
		if r.Err != nil { // a newer cc-ci-run's, say: what it refers to stays
			logs[file], unknown = true, true
			return
		}
		for _, log := range []string{s.Last.Log, s.HeldLog} {
			if log != "" {
				logs[file+"/"+state.Stem(filepath.Base(log))] = true
			}
		}
		if c := s.Canonical; !c.Time.IsZero() {
			logs[file+"/"+stemOf(c.Time.UTC())] = true
			environments[c.Fingerprint] = true
		}
		if s.Run != nil { // "env diff RECIPE" asks for it
			environments[s.Run.Fingerprint] = true
		}
	})
	if last, _ := Last(dir); last != nil { // the status says what changed
		environments[last.Fingerprint], environments[last.Before] = true, true
	}
	records, err := record.Open(dir)
	if err != nil {
		return nil, state.Left{}, err
	}
	last := map[string]bool{}
	for _, invoker := range toolset.Invokers {
		last[state.Stem(records.File(invoker))] = true
	}
	records.Close()
	keep := func(p state.Place, below, stem string) bool {
		if p == state.Logs {
			return logs[below] || logs[below+"/"+stem]
		}
		return last[stem]
	}
	now := time.Now()
	gone, left, err := dir.Expire(b, now, keep, dry)
	if err != nil {
		return gone, left, err
	}
	if data, err := os.ReadFile(manifest); err == nil {
		sum := sha256.Sum256(data)
		environments[hex.EncodeToString(sum[:])] = true
	}
	if unknown {
		return gone, left, nil
	}
	manifests, err := expireManifests(dir, environments, gone, b.Age, dry)
	return append(gone, manifests...), left, err
}

// expireManifests removes the manifests that no record names, other than gone, and
// no canonical revision.
func expireManifests(dir state.Dir, named map[string]bool, gone []state.Expired, age time.Duration, dry bool) (list []state.Expired, err error) {
	f, err := dir.Open(state.Manifests)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	records, err := record.Open(dir)
	if err != nil {
		return nil, err
	}
	defer records.Close()
	if dry {
		records.Without(gone)
	}
	for fingerprint := range records.Fingerprints() {
		named[fingerprint] = true
	}
	names, err := f.Names("")
	for _, name := range names {
		size, written, e := f.Written(name)
		old := time.Since(written) // negative: it claims to be of a time to come
		if named[strings.TrimSuffix(name, ".json")] || e == nil && old < age && old > -time.Hour {
			continue
		}
		if !dry {
			if e := f.Remove(name); e != nil {
				err = errors.Join(err, e)
				continue
			}
		}
		list = append(list, state.Expired{Path: f.Path(name), Why: "no record refers to it", Size: size})
	}
	return list, err
}
