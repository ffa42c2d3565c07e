package leader

import "strings"

// Claim is what a leader's key holds: who it is, and where its API listens, so that
// others pass on what only a leader knows.
type Claim struct {
	Name    string
	Address string // host:port. Empty: it has none.
}

// String is the value of the key: "NAME" or "NAME@HOST:PORT".
func (c Claim) String() string {
	if c.Address == "" {
		return c.Name
	}
	return c.Name + "@" + c.Address
}

// ParseClaim reads the value of a key.
func ParseClaim(value string) Claim {
	if i := strings.LastIndexByte(value, '@'); i >= 0 {
		return Claim{value[:i], value[i+1:]}
	}
	return Claim{Name: value}
}
