//go:build failpoints

package fail

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

type kind uint8

const (
	kindOff kind = iota
	kindCrash
	kindPanic
	kindSleep
	kindPause
	kindSkip
)

var kinds = map[string]kind{
	"off": kindOff, "crash": kindCrash, "panic": kindPanic, "sleep": kindSleep, "pause": kindPause, "skip": kindSkip,
}

// term is what happens on some passes.
type term struct {
	passes int // 0: all from here on.
	kind   kind
	sleep  time.Duration
}

// parse reads a chain of terms: [N*]action[(duration)] joined by "->".
func parse(action string) ([]term, error) {
	if action == "" {
		return nil, nil
	}
	var terms []term
	for _, part := range strings.Split(action, "->") {
		t, err := parseTerm(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		if n := len(terms); n > 0 && terms[n-1].passes == 0 {
			return nil, fmt.Errorf("action %q: what stands after a term without a count is never reached", action)
		}
		terms = append(terms, t)
	}
	return terms, nil
}

func parseTerm(text string) (term, error) {
	var t term
	word := text
	if count, rest, ok := strings.Cut(text, "*"); ok {
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 {
			return t, fmt.Errorf("action %q: %q is not a number of passes", text, count)
		}
		t.passes, word = n, rest
	}
	name, argument, hasArgument := strings.Cut(strings.TrimSuffix(word, ")"), "(")
	known := false
	if t.kind, known = kinds[name]; !known || hasArgument != strings.HasSuffix(word, ")") || hasArgument != (t.kind == kindSleep) {
		return t, fmt.Errorf("action %q: want off, crash, panic, sleep(DURATION), pause or skip, with N* before it if counted", text)
	}
	if t.kind != kindSleep {
		return t, nil
	}
	var err error
	if t.sleep, err = time.ParseDuration(argument); err != nil || t.sleep < 0 {
		return t, fmt.Errorf("action %q: %q is not a duration", text, argument)
	}
	return t, nil
}
