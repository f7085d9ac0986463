package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cc-ci-run/e2e/internal/image"
)

// giteaPackages are the Debian packages whose files are in Gitea's image. (Upstream's
// image has packages of Alpine.)
var giteaPackages = []string{
	"bash", "ca-certificates", "coreutils", "curl", "dash", "debianutils", "findutils", "gettext-base", "git", "grep", "gzip",
	"hostname", "openssh-client", "procps", "sed", "tar", "tini",
}

// leftOut are parts of packages that no test uses: documentation, translations, and
// programs for which the image has no interpreter.
var leftOut = regexp.MustCompile(`^/usr/(share/(bash-completion|doc|doc-base|gitweb|info|lintian|locale|man|menu|perl5)|lib/systemd)(/|$)|^/var/|^/etc/(init\.d|systemd)(/|$)`)

// gitea writes an image that is laid out as upstream's rootless image, with the same
// scripts and variables, so that one compose.yml fits both images. The image has two
// tags, which differ only in a label: an upgrade from one tag to the other replaces
// the container.
func gitea(file string) error {
	files, err := packageFiles(giteaPackages)
	if err != nil {
		return err
	}
	const program = "build/gitea"
	libraries, err := librariesOf(append(executables(files), program))
	if err != nil {
		return err
	}
	fill := func(l *image.Layer) {
		for _, dir := range []string{"bin", "lib", "lib64", "sbin"} { // links, as in Debian since 12
			l.Link(dir, "usr/"+dir)
		}
		for _, file := range files {
			l.Copy(strings.TrimPrefix(file, "/"), file)
		}
		for _, name := range slices.Sorted(maps.Keys(libraries)) {
			l.Copy(strings.TrimPrefix(name, "/"), libraries[name])
		}
		l.Copy("etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt")
		l.File("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/bash\ngit:x:1000:1000::/var/lib/gitea/git:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n")
		l.File("etc/group", 0o644, "root:x:0:\ngit:x:1000:\nnogroup:x:65534:\n")
		l.File("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n")
		l.Dir("root", 0o700, 0)
		l.Dir("tmp", os.ModeSticky|0o777, 0)
		for _, dir := range []string{"var/lib/gitea", "etc/gitea"} {
			l.Dir(dir, 0o755, 1000)
		}
		l.Copy("app/gitea/gitea", program)
		for _, dir := range []string{"options", "public", "templates"} {
			l.Copy("usr/share/gitea/"+dir, program+".static/"+dir)
		}
		rootless := program + ".static/rootless/"
		l.Copy("etc/templates", rootless+"etc/templates")
		scripts, _ := filepath.Glob(rootless + "usr/local/bin/*")
		for _, script := range scripts {
			text, _ := os.ReadFile(script) // a missing one fails at the start of a container
			l.File("usr/local/bin/"+filepath.Base(script), 0o755, string(text))
		}
	}
	config := image.Config{
		User: "1000:1000",
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"GITEA_WORK_DIR=/var/lib/gitea", "GITEA_CUSTOM=/var/lib/gitea/custom", "GITEA_TEMP=/tmp/gitea",
			"TMPDIR=/tmp/gitea", "GITEA_APP_INI=/etc/gitea/app.ini", "HOME=/var/lib/gitea/git",
		},
		Entrypoint:   []string{"/usr/bin/tini", "--", "/usr/local/bin/docker-entrypoint.sh"},
		WorkingDir:   "/var/lib/gitea",
		ExposedPorts: map[string]struct{}{"2222/tcp": {}, "3000/tcp": {}},
		Volumes:      map[string]struct{}{"/var/lib/gitea": {}, "/etc/gitea": {}},
	}
	version := func(n string) image.Image {
		c := config
		c.Labels = map[string]string{"cc-ci-run-test.version": n}
		return image.Image{Name: "cc-ci-run-test/gitea:" + n, Config: c}
	}
	return image.Save(file, fill, version("1"), version("2"))
}

// packageFiles are the files and links of Debian packages, by the names that they
// have when /bin is a link to /usr/bin.
func packageFiles(packages []string) ([]string, error) {
	out, err := exec.Command("dpkg-query", append([]string{"--listfiles"}, packages...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-query: %w: install what is missing of %s", err, strings.Join(packages, " "))
	}
	files := map[string]bool{}
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		dir, err := filepath.EvalSymlinks(filepath.Dir(name))
		if !strings.HasPrefix(name, "/") || err != nil || leftOut.MatchString(name) {
			continue
		}
		name = filepath.Join(dir, filepath.Base(name))
		if info, err := os.Lstat(name); err == nil && !info.IsDir() {
			files[name] = true
		}
	}
	return slices.Sorted(maps.Keys(files)), nil
}

// executables are the ELF programs among the files.
func executables(files []string) (found []string) {
	for _, name := range files {
		info, err := os.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if head, err := readHead(name); err == nil && head == "\x7fELF" {
			found = append(found, name)
		}
	}
	return found
}

func readHead(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	head := make([]byte, 4)
	_, err = file.Read(head)
	return string(head), err
}

var libraryLine = regexp.MustCompile(`(?m)^\t(?:\S+ => )?(/\S+) \(0x`)

// librariesOf are the libraries that programs load, and the programs' loader: a map
// from each path that ldd prints to the file to which that path leads.
func librariesOf(programs []string) (map[string]string, error) {
	out, err := exec.Command("ldd", programs...).Output()
	if err != nil && len(out) == 0 { // ldd exits with 1 if a program is static
		return nil, fmt.Errorf("ldd: %w", err)
	}
	libraries := map[string]string{}
	for _, found := range libraryLine.FindAllStringSubmatch(string(out), -1) {
		file, err := filepath.EvalSymlinks(found[1])
		if err != nil {
			return nil, err
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(found[1]))
		if err != nil {
			return nil, err
		}
		libraries[filepath.Join(dir, filepath.Base(found[1]))] = file
	}
	return libraries, nil
}
