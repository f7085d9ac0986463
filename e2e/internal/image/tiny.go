package image

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// TinyName is the name of the image of e2e/tiny.
const TinyName = "cc-ci-run-test/tiny:1"

// Tiny builds e2e/tiny and writes its image to a file. The current directory must
// be in this module.
func Tiny(file string) error {
	dir, err := os.MkdirTemp(filepath.Dir(file), ".tiny-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "tiny")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "cc-ci-run/e2e/tiny")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // the image has no libraries
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", build, err, out)
	}
	fill := func(l *Layer) {
		l.Copy("tiny", program)
		l.Dir("data", 0o755, 0)
		l.Dir("tmp", os.ModeSticky|0o777, 0)
	}
	return Save(file, fill, Image{TinyName, Config{Cmd: []string{"/tiny"}}})
}
