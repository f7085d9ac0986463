package report

import (
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"cc-ci-run/internal/sweep"
)

// This file draws what happened in many runs: a strip of their outcomes, and a line of
// how long they took. Both are from the oldest run to the newest, and both say the same
// in words. They are made here and not by the templates, because a page has thousands of
// cells; all they have is from the tables below, and numbers.

// cell is how an outcome is drawn. Shape and letter tell it apart without its colour.
type cell struct{ html, word string }

var (
	passedCell  = cell{"<i>·</i>", "passed"}
	failedCell  = cell{"<i class=f>F</i>", "failed"}
	errorCell   = cell{"<i class=e>E</i>", "in error"}
	cutCell     = cell{"<i class=n>C</i>", "cut off"}
	skippedCell = cell{"<i class=n>s</i>", "skipped"}
	otherCell   = cell{"<i class=n>o</i>", "other"}
	notRunCell  = cell{"<i class=n>-</i>", "not run"}
	absentCell  = cell{"<i class=a> </i>", ""}
)

var ofVerdict = map[sweep.Verdict]cell{
	sweep.Promote: passedCell, sweep.Pass: passedCell, sweep.Skip: passedCell,
	sweep.Hold: failedCell, sweep.Error: errorCell, sweep.Cut: cutCell,
}

// ofTest is by the words of [sweep.TestHistory].
var ofTest = map[string]cell{
	"passed": passedCell, "failed": failedCell, "skipped": skippedCell,
	"other": otherCell, "not run": notRunCell, "": absentCell,
}

// strip draws cells, of which the newest is the first. what is what they are of.
func strip(cells []cell, what string) template.HTML {
	var b strings.Builder
	fmt.Fprintf(&b, `<span class="strip" role="img" aria-label="%s">`, inWords(cells, what))
	for _, c := range slices.Backward(cells) {
		b.WriteString(c.html)
	}
	b.WriteString("</span>")
	return template.HTML(b.String())
}

// inWords is a strip for who does not see it: "30 runs: 27 passed, 3 failed; the last 2 failed".
func inWords(cells []cell, what string) string {
	var order []cell
	counts := map[string]int{}
	n := 0
	for _, c := range cells {
		if c.word == "" {
			continue
		}
		n++
		if counts[c.word]++; counts[c.word] == 1 {
			order = append(order, c)
		}
	}
	if n == 0 {
		return "no " + what
	}
	var parts []string
	for _, c := range order {
		parts = append(parts, fmt.Sprintf("%d %s", counts[c.word], c.word))
	}
	text := fmt.Sprintf("%d %s: %s", n, what, strings.Join(parts, ", "))
	if len(order) > 1 {
		same := 0
		for same < len(cells) && cells[same] == cells[0] {
			same++
		}
		if same > 1 {
			text += fmt.Sprintf("; the last %d %s", same, cells[0].word)
		} else {
			text += "; the last one " + cells[0].word
		}
	}
	return text
}

func runStrip(runs []sweep.Past) template.HTML {
	cells := make([]cell, len(runs))
	for i, r := range runs {
		c, ok := ofVerdict[r.Verdict]
		if !ok {
			c = otherCell
		}
		cells[i] = c
	}
	return strip(cells, "runs")
}

func testStrip(outcomes []string) template.HTML {
	cells := make([]cell, len(outcomes))
	for i, outcome := range outcomes {
		c, ok := ofTest[outcome]
		if !ok {
			c = otherCell
		}
		cells[i] = c
	}
	return strip(cells, "runs")
}

// The size of a line of durations.
const (
	lineWidth  = 60
	lineHeight = 16
)

// line draws durations, the newest first, from 0 on. Those that are 0 are unknown. It says
// nothing that the text beside it does not say, so it has no words.
func line(took []time.Duration) template.HTML {
	longest := slices.Max(append(took, 1))
	var points []string
	step := float64(lineWidth-4) / float64(max(len(took)-1, 1))
	x, y := 0.0, 0.0
	for i, d := range slices.Backward(took) {
		if d <= 0 {
			continue
		}
		x = 2 + step*float64(len(took)-1-i)
		y = float64(lineHeight-2) - float64(lineHeight-4)*float64(d)/float64(longest)
		points = append(points, fmt.Sprintf("%.0f,%.1f", x, y))
	}
	if len(points) < 2 {
		return ""
	}
	return template.HTML(fmt.Sprintf(`<svg class="line" viewBox="0 0 %d %d" aria-hidden="true"><polyline points="%s"/><circle cx="%.0f" cy="%.1f" r="1.7"/></svg>`,
		lineWidth, lineHeight, strings.Join(points, " "), x, y))
}

// slower compares what was usual in the newer half of the runs that passed with the older
// half, as [sweep.History.TestHistories] does for a test: "2.1× slower", or "" if that is
// chance.
func slower(runs []sweep.Past) string {
	var took []time.Duration
	for _, r := range runs {
		if !r.Verdict.Bad() {
			took = append(took, r.Took)
		}
	}
	if len(took) < 6 {
		return ""
	}
	now, then := sweep.Median(took[:len(took)/2]), sweep.Median(took[(len(took)+1)/2:])
	if now-then < time.Second || float64(now) < 1.5*float64(then) {
		return ""
	}
	return times(float64(now) / float64(max(then, time.Millisecond)))
}

func times(ratio float64) string { return fmt.Sprintf("%.1f× slower", ratio) }
