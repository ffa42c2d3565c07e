package cluster

import (
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// grid prints rows in columns as kubectl does: at least six wide, three apart. It
// remembers the widths, so that rows of a watch stand below those before.
type grid struct {
	out    io.Writer
	widths []int
	rows   [][]string
}

const (
	columnMin = 6
	columnGap = 3
)

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

// flush prints the rows that were added.
func (g *grid) flush() {
	for _, row := range g.rows {
		for i, c := range row {
			if i == len(g.widths) {
				g.widths = append(g.widths, columnMin)
			}
			g.widths[i] = max(g.widths[i], utf8.RuneCountInString(c)+columnGap)
		}
	}
	w := buffered(g.out)
	for _, row := range g.rows {
		for i, c := range row {
			w.WriteString(c)
			if i < len(row)-1 {
				w.WriteString(strings.Repeat(" ", g.widths[i]-utf8.RuneCountInString(c)))
			}
		}
		w.WriteByte('\n')
	}
	w.Flush()
	g.rows = nil
}

// since is the age of what began at a time, as of now.
func since(now time.Time, t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func count(n int32) string { return strconv.FormatInt(int64(n), 10) }

// deref is what a pointer of an object stands for.
func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// printable keeps what others wrote into an object from acting on a terminal, and in
// one line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}
