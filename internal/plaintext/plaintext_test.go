package plaintext

import (
	"strings"
	"testing"
)

func TestBrief(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"1 failed: test_x", "1 failed: test_x"},
		{"a\nb\x1b[31m\u202ec\xff", "a b [31m c?"},
		{strings.Repeat("ä", 140), strings.Repeat("ä", 140)},
		{strings.Repeat("ä", 141), strings.Repeat("ä", 139) + "…"},
	} {
		if got := Brief(c.text, 140); got != c.want {
			t.Errorf("%q: %q", c.text, got)
		}
	}
}
