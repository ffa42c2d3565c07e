package check

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Parse(page))

// drawnMax is how many operations a browser still draws; those near violations
// and faults are kept.
const drawnMax = 20_000

type bar struct {
	Lane string  `json:"lane"`
	From float64 `json:"from"` // Seconds since the first.
	To   float64 `json:"to"`
	Kind string  `json:"kind"`
	Text string  `json:"text"`
	ID   int     `json:"id,omitempty"`
}

// HTML writes a page that shows the history over time, faults and leaders
// included, what was wrong, and the window that porcupine searched: of those,
// one that has no order if there is one. The page needs nothing else.
func (r *Report) HTML(w io.Writer) error {
	bars, left := r.bars()
	var wrong []string
	for _, v := range r.Violations {
		wrong = append(wrong, v.String())
	}
	return pageTemplate.Execute(w, map[string]any{
		"Bars": bars, "Left": left, "Wrong": wrong, "Found": r.Found, "Vacuous": r.Vacuous,
		"Counts": fmt.Sprintf("%+v", r.Counts), "Searched": fmt.Sprintf("%+v", r.Searched), "Window": string(r.drawn),
	})
}

// bars are what is drawn, and how many are left out.
func (r *Report) bars() (list []bar, left int) {
	guilty := map[int]bool{}
	for _, v := range r.Violations {
		for _, id := range v.Ops {
			guilty[id] = true
		}
	}
	begin, end := r.bounds()
	at := func(t int64) float64 { return float64(max(begin, min(end, t))-begin) / 1e9 }
	for _, s := range r.history.Spans {
		kind := "span"
		if s.Fault {
			kind = "fault"
		}
		list = append(list, bar{Lane: s.Lane, From: at(s.From), To: at(s.To), Kind: kind, Text: s.Text})
	}
	ops := make([]*Op, len(r.history.Ops))
	for i := range ops {
		ops[i] = &r.history.Ops[i]
	}
	slices.SortStableFunc(ops, func(a, b *Op) int {
		if guilty[a.ID] != guilty[b.ID] {
			return map[bool]int{true: -1, false: 1}[guilty[a.ID]]
		}
		return int(max(-1, min(1, a.Call-b.Call)))
	})
	if left = len(ops) - drawnMax; left > 0 {
		ops = ops[:drawnMax]
	}
	for _, op := range ops {
		b := bar{Lane: fmt.Sprintf("client %d", op.Client), From: at(op.Call), To: at(op.Return), Kind: op.Outcome.String(), ID: op.ID}
		b.Text = fmt.Sprintf("%d, member %d: %s", op.ID, op.Member, describe(op))
		if op.Return == 0 {
			b.To = at(end)
		}
		if guilty[op.ID] {
			b.Kind = "wrong"
		}
		list = append(list, b)
	}
	return list, max(left, 0)
}

func (r *Report) bounds() (begin, end int64) {
	begin, end = math.MaxInt64, math.MinInt64
	for i := range r.history.Ops {
		op := &r.history.Ops[i]
		begin, end = min(begin, op.Call), max(end, op.Call, op.Return)
	}
	for _, s := range r.history.Spans {
		begin = min(begin, s.From)
		if s.To < never {
			end = max(end, s.To)
		}
	}
	return begin, end
}
