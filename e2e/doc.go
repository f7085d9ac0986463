// Package e2e has the tests that need the built environment: they run cc-ci-run
// as its users do. They have the build tag `environment`. After `make build`, which
// builds that environment,
//
//	go test -tags environment ./e2e
//
// runs them. The long proofs have the tag `e2e` besides, and take what a target
// of the Makefile builds for them, such as a real Gitea: `make audited` runs
//
//	go test -tags environment,e2e -run '^TestAudit(FindsDefect3|Stress)$' ./e2e
//
// `make deployed` and `make deployments` start Docker daemons, as root, each in
// namespaces of its own (command with-docker). `make host`, `make drone` and `make
// two-paths` boot machines with a systemd, as root. The latter two start a real Gitea
// and a real Drone server (commands with-gitea and with-drone).
package e2e
