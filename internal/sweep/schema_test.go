package sweep

import (
	"testing"

	"cc-ci-run/internal/config/schema"
)

// docs/schemas/sweep.schema.json knows what the reader of sweep.toml knows.
func TestSchema(t *testing.T) {
	list, err := schema.Differences("../../docs/schemas/sweep.schema.json", form{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		t.Error(d)
	}
}
