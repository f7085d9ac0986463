package toolset

// Change is one difference.
type Change struct{ Text string }

func (c Change) String() string { return c.Text }

// Difference is a stand-in until env diff is merged.
func Difference(a, b *Manifest) []Change { return nil }
