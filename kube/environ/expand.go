package environ

import "strings"

// expand replaces references. A $ that begins neither $( nor $$ stands for itself, and
// so does a $( that is never closed. What a reference became is not looked at again.
func expand(text string, value func(name string) string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i == len(text)-1 {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:i])
		text = text[i:]
		switch text[1] {
		case '$':
			b.WriteByte('$')
			text = text[2:]
		case '(':
			name, rest, closed := strings.Cut(text[2:], ")")
			if !closed {
				b.WriteString("$(")
				text = text[2:]
				continue
			}
			b.WriteString(value(name))
			text = rest
		default:
			b.WriteString(text[:2])
			text = text[2:]
		}
	}
}
