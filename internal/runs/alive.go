package runs

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// alive says whether the process that had a number at a time still runs. The number alone
// says little, because the kernel uses numbers again.
func alive(pid int, then time.Time) bool {
	began, ok := startOf(pid)
	return ok && !began.After(then.Add(time.Second))
}

// startOf is when a process started, by the kernel's clock since boot (proc(5)).
func startOf(pid int) (at time.Time, ok bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return at, false
	}
	// The process's name, in parentheses, may contain any character.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const state, starttime, hertz = 0, 19, 100
	if len(fields) <= starttime || string(fields[state]) == "Z" {
		return at, false
	}
	ticks, err := strconv.ParseInt(string(fields[starttime]), 10, 64)
	if err != nil {
		return at, false
	}
	all, err := os.ReadFile("/proc/stat")
	if err != nil {
		return at, false
	}
	_, after, _ := bytes.Cut(all, []byte("\nbtime "))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	boot, err := strconv.ParseInt(string(line), 10, 64)
	if err != nil {
		return at, false
	}
	return time.Unix(boot, ticks%hertz*int64(time.Second)/hertz).Add(time.Duration(ticks/hertz) * time.Second), true
}
