package host

import (
	"testing"

	"cc-ci-run/internal/config/schema"
)

// docs/schemas/host.schema.json knows what the reader of host.toml knows.
func TestSchema(t *testing.T) {
	list, err := schema.Differences("../../docs/schemas/host.schema.json", form{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		t.Error(d)
	}
}
