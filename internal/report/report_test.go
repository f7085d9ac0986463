package report

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBelievable(t *testing.T) {
	dir := believable(t).write()
	if to := os.Getenv("REPORT_OUT"); to != "" {
		os.CopyFS(to, os.DirFS(dir))
	}
	names, _ := filepath.Glob(dir + "/*")
	for _, n := range names {
		i, _ := os.Stat(n)
		t.Log(filepath.Base(n), i.Size())
	}
}
