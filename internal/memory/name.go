package memory

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// maxName is the longest name of a ref's file, in bytes: names of files have at most 255,
// and git adds ".lock".
const maxName = 200

// Escape is a recipe's name as the last part of a ref. Bytes that
// git-check-ref-format(1) forbids there, and those that a shell or a person could
// misread, become %XX. If the result is too long, it is cut, and "%%" and a hash of the
// name follow; no other name has "%%".
func Escape(recipe string) string {
	var b strings.Builder
	for i := range len(recipe) {
		c := recipe[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '+':
			b.WriteByte(c)
		case c == '-' && i > 0:
			b.WriteByte(c)
		case c == '.' && i > 0 && i < len(recipe)-1 && recipe[i-1] != '.' && !strings.HasPrefix(recipe[i:], ".lock"):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() <= maxName {
		return b.String()
	}
	return fmt.Sprintf("%s%%%%%x", b.String()[:100], sha256.Sum256([]byte(recipe)))
}
