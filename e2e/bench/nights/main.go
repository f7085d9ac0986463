// Command nights simulates how long a night takes by the number of machines and recipes,
// and draws docs/nights.svg.
//
//	go run ./e2e/bench/nights docs/nights.svg
//
// A night is a sweep in which each recipe is run, as after a change of the environment. The
// dispatcher keeps a fixed number of builds under way. Each free machine takes the build that
// has waited longest: the machine starts the step, fetches from the shared repository, runs the
// tests, and pushes the verdict. The git server works at a fixed number of requests at once,
// and the others wait. How long each of these steps takes was measured (docs/machines.md), except
// for the tests: their durations are random, around ten minutes, from the same seed each time.
package main

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// costs are the measured durations, and the numbers of what goes on at once.
type costs struct {
	build  time.Duration                   // to start a build: one request after another
	step   time.Duration                   // of Drone: from a free runner to the step's first command, and back
	sweep  time.Duration                   // of "cc-ci-run sweep --only RECIPE" without fetch, tests and push
	fetch  func(recipes int) time.Duration // of the git server's time
	push   func(recipes int) time.Duration
	server int // requests at which the git server works at once
	jobs   int // builds under way at once: --jobs
}

// line gives a duration that grows with the number of recipes, on the line through two
// measurements: few with 60 recipes, many with 10,000.
func line(few, many time.Duration) func(recipes int) time.Duration {
	return func(recipes int) time.Duration {
		return few + time.Duration(float64(many-few)*float64(recipes-60)/(10_000-60))
	}
}

// measured is with a real Gitea and Drone server on two cores: BenchmarkShared of package e2e,
// and what a build takes besides its tests (docs/machines.md).
var measured = costs{
	build: 100 * time.Millisecond, step: 750 * time.Millisecond, sweep: 250 * time.Millisecond,
	fetch: line(70*time.Millisecond, 260*time.Millisecond), push: line(900*time.Millisecond, 2400*time.Millisecond),
	server: 2, jobs: 64,
}

// event is a point of time at which a run goes on.
type event struct {
	at  time.Duration
	run func(now time.Duration)
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

// pool is something of which only a number is free at once: machines, or places at the git
// server. Who comes first is served first.
type pool struct {
	free    int
	waiting []func(now time.Duration)
}

func (p *pool) take(now time.Duration, then func(now time.Duration)) {
	if p.free > 0 {
		p.free--
		then(now)
		return
	}
	p.waiting = append(p.waiting, then)
}

func (p *pool) give(now time.Duration) {
	if len(p.waiting) == 0 {
		p.free++
		return
	}
	next := p.waiting[0]
	p.waiting = p.waiting[1:]
	next(now)
}

// night gives how long a sweep takes that runs each recipe on one of the machines, and which
// part of the git server's time was in use, from 0 to 1.
func (c costs) night(machines int, tests []time.Duration) (length time.Duration, server float64) {
	var queue events
	after := func(now, wait time.Duration, run func(now time.Duration)) {
		heap.Push(&queue, event{now + wait, run})
	}
	free, git := &pool{free: machines}, &pool{free: c.server}
	var busy time.Duration
	ask := func(now, takes time.Duration, then func(now time.Duration)) {
		git.take(now, func(now time.Duration) {
			busy += takes
			after(now, takes, func(now time.Duration) { git.give(now); then(now) })
		})
	}
	started, dispatcher := 0, &pool{free: 1}
	var start func(now time.Duration)
	start = func(now time.Duration) {
		if started == len(tests) {
			return
		}
		takes := tests[started]
		started++
		dispatcher.take(now, func(now time.Duration) {
			after(now, c.build, func(now time.Duration) {
				dispatcher.give(now)
				free.take(now, func(now time.Duration) {
					after(now, c.step+c.sweep, func(now time.Duration) {
						ask(now, c.fetch(len(tests)), func(now time.Duration) {
							after(now, takes, func(now time.Duration) {
								ask(now, c.push(len(tests)), func(now time.Duration) {
									free.give(now)
									start(now)
								})
							})
						})
					})
				})
			})
		})
	}
	for range c.jobs {
		start(0)
	}
	for len(queue) > 0 {
		e := heap.Pop(&queue).(event)
		length = e.at
		e.run(e.at)
	}
	return length, busy.Seconds() / length.Seconds() / float64(c.server)
}

// durations are how long the tests of each recipe take: ten minutes on average, an hour at most.
func durations(recipes int) (list []time.Duration) {
	random := rand.New(rand.NewPCG(1, uint64(recipes)))
	const spread = 0.7 // of the logarithm
	for range recipes {
		factor := math.Exp(spread*random.NormFloat64() - spread*spread/2)
		list = append(list, min(time.Hour, time.Duration(factor*float64(10*time.Minute))))
	}
	return list
}

var (
	machines = []int{1, 2, 4, 8, 16, 32, 64}
	recipes  = []int{60, 300, 1000, 3000, 10_000}
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "nights: name the file for the plot, for example docs/nights.svg")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], []byte(plot()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "nights:", err)
		os.Exit(1)
	}
	fmt.Print(table())
}

// table has the hours of a night, with the git server's work in percent where that is above 5.
func table() string {
	var b strings.Builder
	fmt.Fprint(&b, "| machines |")
	for _, n := range recipes {
		fmt.Fprintf(&b, " %d recipes |", n)
	}
	fmt.Fprint(&b, "\n| --- |"+strings.Repeat(" --- |", len(recipes))+"\n")
	for _, m := range machines {
		fmt.Fprintf(&b, "| %d |", m)
		for _, n := range recipes {
			length, server := measured.night(m, durations(n))
			fmt.Fprintf(&b, " %.1f h", length.Hours())
			if server > 0.05 {
				fmt.Fprintf(&b, " (%.0f %%)", 100*server)
			}
			fmt.Fprint(&b, " |")
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

// plot draws both axes by their logarithms: machines to the right, hours upwards.
func plot() string {
	const width, height, left, bottom = 720, 420, 60, 40
	const least, most = 0.25, 2000.0 // hours
	x := func(m int) float64 {
		return left + (width-left-110)*math.Log2(float64(m))/math.Log2(float64(machines[len(machines)-1]))
	}
	y := func(hours float64) float64 {
		return height - bottom - (height-bottom-20)*math.Log(hours/least)/math.Log(most/least)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">
<title>How long a night takes: hours by machines, for 60 to 10,000 recipes</title>
<rect width="100%%" height="100%%" fill="#fff"/>
`, width, height)
	for _, h := range []float64{0.5, 1, 2, 4, 8, 24, 100, 500, 1000} {
		colour, name := "#ddd", fmt.Sprintf("%g h", h)
		if h == 8 {
			colour, name = "#c33", "a night"
		}
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="%s"/><text x="%d" y="%.1f" text-anchor="end" fill="#333">%s</text>`+"\n", left, y(h), width-110, colour, left-6, y(h)+4, name)
	}
	for _, m := range machines {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#333">%d</text>`+"\n", x(m), height-bottom+18, m)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" fill="#333">machines</text>`+"\n", (left+width-110)/2, height-6)
	for _, n := range recipes {
		var points []string
		var last float64
		for _, m := range machines {
			length, _ := measured.night(m, durations(n))
			last = y(length.Hours())
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(m), last))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="#268" stroke-width="2"/><text x="%d" y="%.1f" fill="#268">%d recipes</text>`+"\n", strings.Join(points, " "), width-104, last+4, n)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
