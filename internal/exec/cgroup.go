package exec

import (
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A limit of a cgroup, by its names in version 2 and, with its controller, in
// version 1.
var cgroupFiles = [...]struct{ name, controller, v1 string }{
	{"cpu.max", "cpu", "cpu.cfs_quota_us"},
	{"memory.high", "", ""},
	{"memory.max", "memory", "memory.limit_in_bytes"},
	{"memory.swap.max", "", ""},
	{"pids.max", "pids", "pids.max"},
}

// cgroupLimits are the limits of a process's cgroup: of its own and its ancestors'
// the smallest, as the kernel applies all of them. cgroup is /proc/self/cgroup. A
// limit that nobody sets is not in the list. cpu.max is in CPUs. Of what is outside
// of a container's view nothing is known. The root has no limits of its own, unless it
// is that of a cgroup namespace (wholeTree is false).
func cgroupLimits(cgroup string, wholeTree bool, buffer []byte) Pairs {
	least := [len(cgroupFiles)]float64{}
	for i := range least {
		least[i] = math.Inf(1)
	}
	unified := "/sys/fs/cgroup"
	for line := range strings.Lines(cgroup) { // version 2's is the last
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		if controllers == "" {
			smallest(unified, path, wholeTree, func(dir int) {
				for i, f := range cgroupFiles {
					least[i] = min(least[i], cgroupLimit(dir, f.name, buffer))
				}
			})
			break
		}
		unified = "/sys/fs/cgroup/unified" // beside version 1
		for i, f := range cgroupFiles {
			if f.controller != "" && strings.Contains(","+controllers+",", ","+f.controller+",") {
				smallest("/sys/fs/cgroup/"+f.controller, path, wholeTree, func(dir int) {
					least[i] = min(least[i], cgroupLimit(dir, f.v1, buffer))
				})
			}
		}
	}
	list := make(Pairs, 0, len(cgroupFiles))
	for i, f := range cgroupFiles {
		if !math.IsInf(least[i], 1) {
			list = append(list, Pair{f.name, strconv.FormatFloat(least[i], 'f', -1, 64)})
		}
	}
	return list
}

// smallest calls look with a cgroup's directory and with those of its ancestors, but
// not with the root of the whole tree.
func smallest(mount, path string, wholeTree bool, look func(dir int)) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	levels := strings.Count(strings.TrimSuffix(path, "/"), "/")
	if !wholeTree {
		levels++
	}
	if levels == 0 {
		return
	}
	dir, err := unix.Open(mount+path, flags, 0)
	if err != nil { // a container without a namespace, which sees no more than its own cgroup
		levels = 1
		if dir, err = unix.Open(mount, flags, 0); err != nil {
			return
		}
	}
	for {
		look(dir)
		if levels--; levels == 0 {
			unix.Close(dir)
			return
		}
		up, err := unix.Openat(dir, "..", flags, 0)
		unix.Close(dir)
		if err != nil {
			return
		}
		dir = up
	}
}

// cgroupLimit is the value of a file in a cgroup: "max", "1073741824", "50000
// 100000" (a quota and its period), or of version 1 a quota that has its period in
// another file. It is infinite for none.
func cgroupLimit(dir int, file string, buffer []byte) float64 {
	value, period, divided := strings.Cut(cgroupFile(dir, file, buffer), " ")
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || n < 0 || n >= 1<<62 { // "max", and what version 1 has for it
		return math.Inf(1)
	}
	if file == "cpu.cfs_quota_us" {
		period, divided = cgroupFile(dir, "cpu.cfs_period_us", buffer), true
	}
	if divided {
		if p, err := strconv.ParseFloat(period, 64); err == nil && p > 0 {
			n /= p
		}
	}
	return n
}

func cgroupFile(dir int, file string, buffer []byte) string {
	fd, err := unix.Openat(dir, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	n, _ := unix.Read(fd, buffer[:64])
	return strings.TrimSuffix(string(buffer[:max(n, 0)]), "\n")
}
