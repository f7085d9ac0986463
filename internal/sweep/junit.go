package sweep

import (
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// junitSuite is the form that CI servers read: one suite, a case for each recipe.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitMessage `xml:"failure,omitempty"`
	Error   *junitMessage `xml:"error,omitempty"`
	Skipped *junitMessage `xml:"skipped,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit is the JUnit report of a sweep, as XML, with a case for each recipe: HOLD is a failure,
// ERROR and CUT are errors, SKIP, RUN and GONE are skipped, other verdicts are passed. failure says why the sweep itself could not do
// its work, or that it was interrupted: without an error, the report would be green.
func JUnit(results []Result, failure error, took time.Duration) []byte {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
	suite := junitSuite{Name: "cc-ci-run sweep", Time: seconds(took)}
	for _, r := range results {
		c := junitCase{Name: r.Recipe, Class: "recipes", Time: seconds(r.Duration)}
		message := &junitMessage{strings.ToValidUTF8(r.Why, "?"), r.Log}
		switch r.Verdict {
		case Skip, WouldRun, Gone:
			c.Skipped = message
			suite.Skipped++
		case Hold:
			c.Failure = message
			suite.Failures++
		case Error, Cut:
			c.Error = message
			suite.Errors++
		}
		suite.Cases = append(suite.Cases, c)
	}
	if failure != nil {
		suite.Errors++
		suite.Cases = append(suite.Cases, junitCase{Name: "the sweep itself", Class: "sweep", Time: "0", Error: &junitMessage{Message: strings.ToValidUTF8(failure.Error(), "?")}})
	}
	suite.Tests = len(suite.Cases)
	data, err := xml.MarshalIndent(suite, "", " ")
	if err != nil {
		panic(err) // of strings and numbers there is always a report
	}
	return append([]byte(xml.Header), append(data, '\n')...)
}
