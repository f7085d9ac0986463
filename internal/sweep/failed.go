package sweep

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"cc-ci-run/internal/memory"
)

// Failure is a test that failed, or an error while pytest collected the tests.
type Failure struct {
	Where   string // the test, and how long it took; or when the error came
	Message string // lines, as pytest gave them; "" if the memory has none
}

// ErrNoResult is for a run that left no result.
var ErrNoResult = errors.New("the run left no result")

// Failures reads, from the result that r remembers, why a run's tests failed.
func (past Past) Failures(r *memory.Repository) (list []Failure, err error) {
	if past.Result == "" {
		return nil, ErrNoResult
	}
	data, err := r.Blob(past.Result)
	if err != nil {
		return nil, err
	}
	result, err := ParseResult(past.ID, data)
	if err != nil {
		return nil, err
	}
	for _, t := range result.Results.Tests {
		if t.Status != "failed" {
			continue
		}
		list = append(list, Failure{fmt.Sprintf("%s, after %s", t.Name, time.Duration(t.Duration)*time.Millisecond), strings.TrimRight(t.Text(), "\n")})
	}
	for _, text := range result.About().Errors {
		list = append(list, Failure{"while pytest collected the tests", text})
	}
	return list, nil
}
