// Package image writes container images for `docker load` from files of this machine,
// because the tests cannot reach a registry.
//
//	err := image.Save("tiny.tar", func(l *image.Layer) {
//		l.File("tiny", 0o755, program)
//	}, image.Image{Name: "cc-ci-run-test/tiny:1", Config: image.Config{Cmd: []string{"/tiny"}}})
//
// The same files give the same image, byte for byte: no times or owners of this
// machine's files are in the image.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// Image is the name of an image, with its tag, and what a container of it starts with.
type Image struct {
	Name   string
	Config Config
}

// Config is the part "config" of an image's configuration, by Docker's names.
type Config struct {
	User         string              `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
}

// Save writes images to a file. All of them share one layer, which fill fills.
func Save(file string, fill func(*Layer), images ...Image) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(file), ".layer-")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	defer temporary.Close()
	hash := sha256.New()
	layer := newLayer(io.MultiWriter(temporary, hash))
	fill(layer)
	if err := layer.close(); err != nil {
		return err
	}
	size, err := temporary.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := temporary.Seek(0, io.SeekStart); err != nil {
		return err
	}

	saved, err := os.Create(file)
	if err != nil {
		return err
	}
	defer saved.Close()
	archive := tar.NewWriter(saved)
	add := func(name string, size int64, content io.Reader) {
		if err == nil {
			err = archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size})
		}
		if err == nil {
			_, err = io.Copy(archive, content)
		}
	}
	add("layer.tar", size, temporary)
	type entry struct {
		Config           string
		RepoTags, Layers []string
	}
	var manifest []entry
	for _, i := range images {
		config := encode(map[string]any{
			"architecture": runtime.GOARCH, "os": "linux", "config": i.Config,
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(hash.Sum(nil))}},
		})
		name := fmt.Sprintf("%x.json", sha256.Sum256(config))
		add(name, int64(len(config)), bytes.NewReader(config))
		manifest = append(manifest, entry{name, []string{i.Name}, []string{"layer.tar"}})
	}
	list := encode(manifest)
	add("manifest.json", int64(len(list)), bytes.NewReader(list))
	if err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return saved.Close()
}

func encode(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // impossible: the values are strings, and lists and maps of strings
	}
	return data
}
