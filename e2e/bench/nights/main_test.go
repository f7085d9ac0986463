package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// The simulation agrees with what can be computed by hand.
func TestNight(t *testing.T) {
	free := func(int) time.Duration { return 0 }
	same := func(n int) (list []time.Duration) {
		for range n {
			list = append(list, 10*time.Minute)
		}
		return list
	}
	for _, row := range []struct {
		name     string
		costs    costs
		machines int
		tests    []time.Duration
		want     time.Duration
	}{
		{"nothing costs anything", costs{fetch: free, push: free, server: 1, jobs: 64}, 1, same(60), 10 * time.Hour},
		{"two machines share", costs{fetch: free, push: free, server: 1, jobs: 64}, 2, same(60), 5 * time.Hour},
		{"more machines than recipes", costs{fetch: free, push: free, server: 1, jobs: 64}, 64, same(60), 10 * time.Minute},
		{"each step costs", costs{step: time.Minute, sweep: time.Minute, fetch: free, push: free, server: 1, jobs: 64}, 1, same(10), 120 * time.Minute},
		{"one request for a build after another", costs{build: time.Minute, fetch: free, push: free, server: 1, jobs: 64}, 64, same(60), 70 * time.Minute},
		{"few builds under way", costs{fetch: free, push: free, server: 1, jobs: 2}, 64, same(60), 5 * time.Hour},
		{"all push at once, and the server takes one at a time", costs{fetch: free, push: func(int) time.Duration { return time.Minute }, server: 1, jobs: 64}, 60, same(60), 70 * time.Minute},
		{"or two", costs{fetch: free, push: func(int) time.Duration { return time.Minute }, server: 2, jobs: 64}, 60, same(60), 40 * time.Minute},
	} {
		if got, _ := row.costs.night(row.machines, row.tests); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

// The plot and the table in the docs are what the simulation gives.
func TestDocs(t *testing.T) {
	svg, err := os.ReadFile("../../../docs/nights.svg")
	if err != nil || string(svg) != plot() {
		t.Errorf("docs/nights.svg is old: go run ./e2e/bench/nights docs/nights.svg (%v)", err)
	}
	page, err := os.ReadFile("../../../docs/machines.md")
	if err != nil || !strings.Contains(string(page), table()) {
		t.Errorf("docs/machines.md does not have the table: go run ./e2e/bench/nights docs/nights.svg prints it (%v)", err)
	}
}
