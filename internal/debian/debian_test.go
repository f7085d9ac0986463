package debian

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// Debian's fields of dependencies.
func TestNames(t *testing.T) {
	got := names("libc6 (>= 2.36), perl:any, default-mta | mail-transport-agent, , x")
	if want := []string{"libc6", "perl", "default-mta", "mail-transport-agent", "x"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The real package databases, on a machine that has them.
func TestDebian(t *testing.T) {
	if !Here() {
		t.Skip("no dpkg here")
	}
	files := []string{"/usr/bin/dpkg", "/nonesuch/file"}
	if got := Owners(t.Context(), files); len(got) != 1 || got["/usr/bin/dpkg"] != "dpkg" {
		t.Errorf("Owners: %v", got)
	}
	// /bin/sh is diverted on Debian: that is nobody's name.
	for file, owner := range Owners(t.Context(), []string{"/bin/sh", "/usr/bin/sh"}) {
		if strings.ContainsAny(owner, " :") {
			t.Errorf("%s is of %q", file, owner)
		}
	}
	if got := Known(t.Context(), []string{"dpkg", "nonesuch-package"}); !slices.Equal(got, []string{"dpkg"}) {
		t.Errorf("Known: %v", got)
	}
	if got := Versions(t.Context(), []string{"dpkg", "nonesuch-package"}); len(got) != 1 || got["dpkg"] == "" {
		t.Errorf("Versions: %v", got)
	}
	// dpkg depends on tar, and on the C library for this architecture.
	got, err := Files(t.Context(), []string{"dpkg", "nonesuch-package"})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/usr/share/doc/dpkg", "/usr/share/doc/tar", "/usr/share/doc/libc6"} {
		if !slices.Contains(got, file) {
			t.Errorf("Files has no %s, of what dpkg needs", file)
		}
	}
	if got, err := Files(t.Context(), []string{"nonesuch-package"}); len(got) > 0 || err != nil {
		t.Errorf("Files of nothing: %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := Owners(ctx, files); len(got) != 0 {
		t.Errorf("Owners, cancelled: %v", got)
	}
	if _, err := Files(ctx, []string{"dpkg"}); err == nil {
		t.Error("Files, cancelled: no error")
	}
}
