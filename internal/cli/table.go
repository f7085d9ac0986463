package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/sweep"
)

// This file shows what a command found: as a table for people, or as JSON.

// output is the flag --output.
type output string

func (o *output) String() string { return string(*o) }
func (o *output) Type() string   { return "table|json" }
func (o *output) Set(s string) error {
	if s != "table" && s != "json" {
		return errors.New("must be table or json")
	}
	*o = output(s)
	return nil
}

func (o *output) addTo(cmd *cobra.Command) {
	*o = "table"
	cmd.Flags().VarP(o, "output", "o", "form of the output")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// show prints v as JSON, or rows below a head as a table.
func (p Process) show(o output, v any, head string, rows [][]string) error {
	if o == "json" {
		enc := json.NewEncoder(p.Stdout)
		enc.SetIndent("", "  ")
		return unread(enc.Encode(v))
	}
	return p.table(p.Stdout, head, rows)
}

// table prints rows in columns. The head is bold on a terminal; a first cell
// that is a verdict is coloured (see paint). On a terminal long cells are wrapped, so
// that the table fits; elsewhere a row is a line, as grep and other programs need it.
func (p Process) table(w io.Writer, head string, rows [][]string) error {
	terminal := int(p.Stdout.Fd())
	colour := exec.IsTerminal(terminal) && env.Lookup(p.Environ, "NO_COLOR") == "" && env.Lookup(p.Environ, "TERM") != "dumb"
	all := append([][]string{strings.Split(head, "|")}, rows...)
	for _, cells := range all {
		for i, cell := range cells { // what others wrote does not reach the terminal's controls
			cells[i] = visible(cell)
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, tableGap, ' ', 0)
	limits := columnLimits(all, exec.Columns(terminal))
	for n, cells := range all {
		code := paint(cells[0])
		if n == 0 {
			code = "01"
		}
		for _, line := range wrapRow(cells, limits) {
			if colour { // the same bytes in each line, so that columns stay in line
				line[0] = "\x1b[" + code + "m" + line[0] + "\x1b[0m"
			}
			fmt.Fprintln(tw, strings.Join(line, "\t"))
		}
	}
	return unread(tw.Flush())
}

// unread makes no error of a reader that has gone away.
func unread(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

const (
	helpWidth = 80
	tableGap  = 2  // blanks between two columns
	narrowest = 16 // a column is not made narrower than this
	unlimited = 1 << 30
)

// columnLimits gives how many characters of each column fit into a terminal of some
// width: the widest columns are made narrower. A width of 0 is unlimited.
func columnLimits(rows [][]string, width int) []int {
	columns := len(rows[0])
	if width == 0 {
		return slices.Repeat([]int{unlimited}, columns)
	}
	limits, words := make([]int, columns), make([]int, columns)
	for _, cells := range rows {
		for i, cell := range cells {
			limits[i] = max(limits[i], utf8.RuneCountInString(cell))
			for word := range strings.FieldsSeq(cell) {
				words[i] = max(words[i], utf8.RuneCountInString(word))
			}
		}
	}
	sum := func(list []int) int {
		all := tableGap * (columns - 1)
		for _, n := range list {
			all += n
		}
		return all
	}
	// Where all words fit, no column becomes narrower than its longest word, which
	// would be shown whole and put the columns after it too far to the right.
	floors := slices.Repeat([]int{narrowest}, columns)
	if sum(words) <= width {
		floors = words
	}
	for over := sum(limits) - width; over > 0; over-- {
		widest := -1
		for i, n := range limits {
			if n > floors[i] && (widest < 0 || n > limits[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		limits[widest]--
	}
	return limits
}

// wrapRow gives the lines of a row whose cells are wrapped at blanks. A word that is
// longer than its column stays whole, so that a path can be copied.
func wrapRow(cells []string, limits []int) (lines [][]string) {
	for column, cell := range cells {
		for n, part := range wrapText(cell, limits[column]) {
			if n == len(lines) {
				lines = append(lines, make([]string, len(cells)))
			}
			lines[n][column] = part
		}
	}
	return lines
}

func wrapText(text string, limit int) (lines []string) {
	if utf8.RuneCountInString(text) <= limit {
		return []string{text}
	}
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > limit {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// controls says whether a character controls a terminal, or turns the direction of writing.
func controls(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// visible makes spaces of control characters, and of those that turn the
// direction of writing.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if controls(r) {
			return ' '
		}
		return r
	}, text)
}

// paint is the colour of a first cell: two digits of an SGR code.
func paint(cell string) string {
	switch cell {
	case string(finding.OK), string(env.Fixed), string(env.Given), string(parity.Identical), string(sweep.Promote):
		return "32"
	case string(finding.Note), string(env.Passed), string(env.Default), string(parity.Declared), string(sweep.Skip), string(sweep.WouldRun), string(finding.LeftOut), string(sweep.Old):
		return "33"
	case string(finding.Fault), string(env.Dropped), string(parity.Drift), string(sweep.Hold), string(sweep.Error), string(finding.Unknown):
		return "31"
	}
	return "39"
}
