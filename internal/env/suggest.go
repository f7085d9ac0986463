package env

import (
	"strconv"

	"github.com/agnivade/levenshtein"
)

// Suggest gives `; did you mean "git"?` for the known word nearest to word,
// or "" where none is near (two letters, as cobra does it for commands).
func Suggest(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := levenshtein.ComputeDistance(word, k); d < distance && d < len(word) {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + strconv.Quote(best) + "?"
}
