package toolset

import (
	"testing"

	"cc-ci-run/internal/config/schema"
)

// docs/schemas/toolset.schema.json knows what the reader of toolset.toml knows.
func TestSchema(t *testing.T) {
	list, err := schema.Differences("../../docs/schemas/toolset.schema.json", Toolset{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		t.Error(d)
	}
}
