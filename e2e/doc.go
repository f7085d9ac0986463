// Package e2e has the tests that need the built environment: they run cc-ci-run
// as its users do. Their build tag is `environment`: `make build` makes it, and
//
//	go test -tags environment ./e2e
//
// runs them. The long proofs beside them are the Makefile's targets.
package e2e
