package record

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
)

func testPlan() *env.Plan {
	return &env.Plan{
		Fingerprint: "f", Manifest: "/m.json", Backend: "host", State: "/s", Bin: "/b", Interpreter: "/b/python3",
		Set: []string{"A=1", "LANG=C.UTF-8"}, Default: []string{"TERM=dumb"}, Pass: []string{"HOME", "X_*"}, Site: []string{"GITEA_URL"},
		Only: []env.Only{{Invoker: "drone", Patterns: []string{"DRONE", "DRONE_*"}}}, Require: []string{"HOME"},
		Process:   env.Process{Umask: "0022", NoFile: 1024, Core: 7, NoNewPrivs: true},
		Seal:      true,
		HostPaths: []string{"/bin/sh"}, Absent: []env.Absent{{Name: "abra"}},
		Files: []env.File{{Path: "/b/git", Size: 1, MTime: 2, Inode: 3}}, Dirs: []string{"/b"},
	}
}

// What is written by hand is what encoding/json would write.
func TestAppendJSON(t *testing.T) {
	caller := []string{"HOME=/h", "DRONE=true", "DRONE_REPO=a\"\\\n\x01é<>&", "\xff=x", "PATH=/usr/bin:\xfe"}
	e, _ := testPlan().Environment(caller, "drone")
	for _, args := range [][]string{{}, {"a", "\xff", "\u2028", "\t", "\x7f", ""}} {
		r := New(time.Now(), testPlan(), e, caller, env.DetectInvoker(caller, false), "script", "./x.py", args, true)
		r.Sealed = "none: a reason"
		if len(args) > 0 {
			r.SSHFiles = exec.Pairs{{Name: "/h/.ssh/config", Value: "7 bytes"}}
			r.Docker = &docker.Daemon{Socket: "/s", State: docker.Answers, Version: "20.10.24", ID: "i", Reason: "say \"init\""}
		}
		var got, want map[string]any
		if err := json.Unmarshal(r.AppendJSON(nil), &got); err != nil {
			t.Fatalf("%v in %s", err, r.AppendJSON(nil))
		}
		data, err := json.Marshal(asMaps(r))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\nwant\n%s", r.AppendJSON(nil), data)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, r.AppendJSON(nil), "", " "); err != nil || indented.String() != string(r.AppendJSON(nil)) {
			t.Errorf("%v, or it is indented otherwise:\n%s", err, r.AppendJSON(nil))
		}
	}
}

// asMaps is a record for encoding/json, to which a slice of pairs is not an object.
func asMaps(r *Record) any {
	object := func(pairs exec.Pairs) map[string]string {
		m := map[string]string{}
		for _, p := range pairs {
			m[p.Name] = p.Value
		}
		return m
	}
	type process struct {
		exec.State
		Limits map[string]string `json:"limits"`
	}
	type surroundings struct {
		*exec.Surroundings
		Namespaces map[string]string `json:"namespaces"`
		Cgroup     map[string]string `json:"cgroup_limits"`
		Files      map[string]string `json:"files"`
	}
	s := r.Surroundings
	return struct {
		*Record
		HostPaths    map[string]string `json:"host_paths"`
		SSHFiles     map[string]string `json:"ssh_files"`
		Process      process           `json:"process"`
		Surroundings surroundings      `json:"surroundings"`
	}{r, object(r.HostPaths), object(r.SSHFiles), process{r.Process, object(r.Process.Limits)}, surroundings{s, object(s.Namespaces), object(s.Cgroup), object(s.Files)}}
}
