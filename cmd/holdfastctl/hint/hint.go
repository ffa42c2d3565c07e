// Package hint reads what gRPC says of a connection that could not be made: the
// cause, out of several layers of words, and what mends it.
package hint

import "strings"

// Hints are mends by a sign in the text of an error. The first that fits counts.
type Hints []struct{ Sign, Mend string }

// Mend is that of an error, otherwise if no sign fits.
func (h Hints) Mend(text, otherwise string) string {
	for _, each := range h {
		if strings.Contains(text, each.Sign) {
			return each.Mend
		}
	}
	return otherwise
}

// Cause is the innermost of what gRPC wraps.
func Cause(text string) string {
	if at := strings.LastIndex(text, "desc = "); at >= 0 {
		text = strings.Trim(text[at+len("desc = "):], `"`)
	}
	return strings.TrimPrefix(text, "transport: Error while dialing: ")
}
