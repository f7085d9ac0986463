package exec

import (
	"hash/fnv"
	"path"
	"slices"
	"strconv"
	"strings"
)

// mount is a line of /proc/PID/mountinfo, see proc_pid_mountinfo(5).
type mount struct {
	point, options string
	content        // what is mounted
}

// content is a directory or file of a file system.
type content struct {
	source, kind string // of the file system
	dir          string // in the file system
	super        string // options of the file system, where they say what can be seen of it
}

// maxMounts is how many differing mounts a record has at most.
const maxMounts = 64

// differingMounts are the mounts of this process that differ from those of process
// 1, sorted, one for each path:
//
//	/home: inaccessible                       ProtectHome= of systemd.exec(5)
//	/usr: read-only                           ProtectSystem=
//	/tmp: ext4 /dev/vda1 /tmp/systemd-private/tmp rw,relatime
//	/srv: not mounted                         mounted for process 1 only
//
// A mount that shows what process 1 has at that path anyway is none of them, and
// nosuid is no difference. If process 1 is hidden (ProtectProc=), all mounts are listed.
func differingMounts() []string {
	buffer := make([]byte, 0, 8<<10)
	read := func(file string) []mount { return parseMounts(procPart(file, buffer, 16<<20)) }
	return differ(read("/proc/self/mountinfo"), read("/proc/1/mountinfo"))
}

func differ(mine, one []mount) []string {
	list := []string{}
	for _, m := range mine {
		has, options := under(one, m.point)
		switch {
		case len(one) > 0 && m.content == has && m.options == options:
		case m.kind == "tmpfs" && (strings.HasSuffix(m.dir, "/inaccessible/dir") || strings.HasSuffix(m.dir, "/inaccessible/reg")):
			list = append(list, m.point+": inaccessible")
		case len(one) > 0 && m.content == has && m.options == "ro"+strings.TrimPrefix(options, "rw"):
			list = append(list, m.point+": read-only")
		default:
			text := m.point + ": " + m.kind + " " + m.source + " " + m.dir + " " + m.options
			if m.super != "" {
				text += " (" + m.super + ")"
			}
			list = append(list, text)
		}
	}
	for _, m := range one {
		if has, _ := under(mine, m.point); !mounted(mine, m.point) && has != m.content {
			list = append(list, m.point+": not mounted")
		}
	}
	slices.Sort(list)
	if len(list) > maxMounts {
		sum := fnv.New64a()
		for _, m := range list[maxMounts:] {
			_, _ = sum.Write([]byte(m + "\n"))
		}
		more := strconv.Itoa(len(list)-maxMounts) + " more, sum " + strconv.FormatUint(sum.Sum64(), 16)
		list = append(list[:maxMounts], more)
	}
	return list
}

// parseMounts lists the mounts that mountinfo has, sorted by their paths, the topmost
// of each path.
func parseMounts(data string) []mount {
	list := make([]mount, 0, strings.Count(data, "\n"))
	for line := range strings.Lines(data) {
		before, after, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		var fields [6]string // the last two are the mount's point and options
		for i := range fields {
			fields[i], before, _ = strings.Cut(before, " ")
		}
		kind, after, _ := strings.Cut(after, " ")
		source, super, ok := strings.Cut(after, " ")
		if !ok || fields[5] == "" || passing(fields[4]) {
			continue
		}
		m := mount{fields[4], withoutSetuid(fields[5]), content{source, kind, private(fields[3]), ""}}
		switch m.kind {
		case "tmpfs", "proc", "overlay": // size=, hidepid=, lowerdir=
			m.super = super
		default:
			m.super, _, _ = strings.Cut(super, ",") // ro or rw
			m.super = strings.TrimPrefix(m.super, "rw")
		}
		list = append(list, m)
	}
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b mount) int { return strings.Compare(a.point, b.point) })
	return slices.CompactFunc(list, func(a, b mount) bool { return a.point == b.point })
}

// withoutSetuid leaves nosuid out of a mount's options: systemd sets it on what a unit
// without new privileges mounts, where it changes nothing.
func withoutSetuid(options string) string {
	before, after, found := strings.Cut(options, ",nosuid")
	if found && (after == "" || after[0] == ',') {
		return before + after
	}
	return options
}

// passing says that a mount is one of those that come and go with containers,
// sessions and units, and mean nothing to a test.
func passing(point string) bool {
	for _, dir := range [...]string{"/run/credentials", "/run/docker/", "/run/netns/", "/run/systemd/", "/run/user/", "/var/lib/containerd/", "/var/lib/docker/", "/proc/sys/fs/binfmt_misc"} {
		if strings.HasPrefix(point, dir) {
			return true
		}
	}
	return false
}

// private takes a unit's and a boot's name out of what PrivateTmp= makes, so that
// two units with it are alike: /tmp/systemd-private-BOOT-UNIT-RANDOM/tmp.
func private(dir string) string {
	const mark = "/systemd-private-"
	before, after, ok := strings.Cut(dir, mark)
	if !ok {
		return dir
	}
	_, rest, _ := strings.Cut(after, "/")
	return before + strings.TrimSuffix(mark, "-") + "/" + rest
}

// mounted says whether there is a mount at a path.
func mounted(list []mount, point string) bool {
	_, found := find(list, point)
	return found
}

func find(list []mount, point string) (int, bool) {
	return slices.BinarySearchFunc(list, point, func(m mount, point string) int { return strings.Compare(m.point, point) })
}

// under is what is seen at a path, by way of the mount that has it, and that
// mount's options.
func under(list []mount, at string) (content, string) {
	for point := at; ; point = path.Dir(point) {
		if i, ok := find(list, point); ok {
			c := list[i].content
			if point != at {
				c.dir = path.Join(c.dir, strings.TrimPrefix(at, point))
			}
			return c, list[i].options
		}
		if point == "/" || point == "." {
			return content{}, ""
		}
	}
}
