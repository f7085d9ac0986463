package exec

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The limits are those that the kernel lists, by its names and in order.
func TestLimits(t *testing.T) {
	data, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	var want Pairs
	for line := range strings.Lines(string(data)) {
		if name, value, _ := strings.Cut(line, "  "); name != "Limit" {
			want = append(want, Pair{name, fold(value)})
		}
	}
	if got, want := captureLimits(), want.Sorted(); !slices.Equal(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
}
