package env

import (
	"strconv"

	"github.com/agnivade/levenshtein"
)

// Suggest gives `; did you mean "git"?` for the known word nearest to word,
// or "" where none is near: one letter differs, of a word of six letters or more two,
// or two letters are in each other's place.
func Suggest(word string, known []string) string {
	best, distance := "", min(2, max(1, len(word)/3))+1
	for _, k := range known {
		d := levenshtein.ComputeDistance(word, k)
		if turned(word, k) {
			d = 1
		}
		if d < distance && d < len(word) {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + strconv.Quote(best) + "?"
}

// turned says whether two neighbouring letters are in each other's place.
func turned(a, b string) bool {
	if len(a) != len(b) || a == b {
		return false
	}
	i := 0
	for a[i] == b[i] {
		i++
	}
	return i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
}
