package launch

import "errors"

// Seal is the flag --seal: whether the kernel is to refuse what the toolset
// lacks (package seal).
type Seal string

// The values of Seal; "" is a run without.
const (
	SealRequired   Seal = "required"    // --seal: no run on a kernel that can't
	SealBestEffort Seal = "best-effort" // run then all the same, and say so
)

// Set is a flag's value from the command line.
func (s *Seal) Set(word string) error {
	switch v := Seal(word); v {
	case SealRequired, SealBestEffort:
		*s = v
		return nil
	}
	return errors.New("write --seal or --seal=best-effort")
}

func (s *Seal) String() string { return string(*s) }

// Type is none, so that help texts have the flag as it is written.
func (s *Seal) Type() string { return "" }

// Flag is how the flag is written, "" for none.
func (s Seal) Flag() string {
	switch s {
	case SealRequired:
		return "--seal"
	case SealBestEffort:
		return "--seal=best-effort"
	}
	return ""
}
