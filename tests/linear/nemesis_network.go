package linear

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-db/holdfast/tests/network"
)

// direction is one way between two places.
type direction struct{ from, to int }

// both ways between all of one group and all of another.
func between(as, bs []int) (cuts []direction) {
	for _, a := range as {
		for _, b := range bs {
			if a != b {
				cuts = append(cuts, direction{a, b}, direction{b, a})
			}
		}
	}
	return cuts
}

// partition cuts what shape says, and heals it. Other nemeses may cut the same
// links: cuts are counted.
func partition(shape func(*attack) []direction) func(context.Context, *attack) bool {
	return func(ctx context.Context, a *attack) bool {
		cuts := shape(a)
		a.cut(cuts)
		a.wait(ctx, 400, 3000)
		a.heal(cuts)
		return len(cuts) > 0
	}
}

func (a *attack) cut(cuts []direction) {
	for _, d := range cuts {
		if err := a.mesh.Cut(d.from, d.to); err != nil {
			a.rec.violate("cut: %v", err)
		}
	}
}

func (a *attack) heal(cuts []direction) {
	for _, d := range cuts {
		if err := a.mesh.Heal(d.from, d.to); err != nil {
			a.rec.violate("heal: %v", err)
		}
	}
}

func minority(a *attack) []direction {
	others := a.others(a.rng, a.leader(a.rng))
	few := others[:1+a.rng.Intn((len(a.places)-1)/2)]
	a.text = "cut off " + a.names(few)
	return between(few, without(a.rng.Perm(len(a.places)), few))
}

func withLeader(a *attack) []direction {
	leader := a.leader(a.rng)
	few := append([]int{leader}, a.others(a.rng, leader)[:(len(a.places)-1)/2-a.rng.Intn(2)]...)
	few = few[:min(len(few), (len(a.places)-1)/2)]
	a.text = "cut off the leader, with it: " + a.names(few)
	return between(few, without(a.rng.Perm(len(a.places)), few))
}

func without(all, some []int) (rest []int) {
	for _, i := range all {
		if !contains(some, i) {
			rest = append(rest, i)
		}
	}
	return rest
}

func contains(list []int, i int) bool {
	for _, j := range list {
		if i == j {
			return true
		}
	}
	return false
}

func ring(a *attack) []direction {
	order := a.rng.Perm(len(a.places))
	var cuts []direction
	for x := range order {
		for y := x + 2; y < len(order) && y < x+len(order)-1; y++ {
			cuts = append(cuts, between(order[x:x+1], order[y:y+1])...)
		}
	}
	a.text = "ring of " + a.names(order)
	return cuts
}

func bridge(a *attack) []direction {
	order := a.rng.Perm(len(a.places))
	half := (len(order) - 1) / 2
	left, middle, right := order[:half], order[half:half+1], order[half+1:]
	a.text = fmt.Sprintf("%s | %s | %s", a.names(left), a.names(middle), a.names(right))
	return between(left, right)
}

func oneWay(a *attack) []direction {
	i := a.rng.Intn(len(a.places))
	if a.rng.Intn(2) == 0 {
		i = a.leader(a.rng)
	}
	deaf := a.rng.Intn(2) == 0
	var cuts []direction
	for _, j := range a.others(a.rng, i) {
		if deaf {
			cuts = append(cuts, direction{j, i})
		} else {
			cuts = append(cuts, direction{i, j})
		}
	}
	if a.text = a.places[i].Name + " is not heard"; deaf {
		a.text = a.places[i].Name + " hears nobody"
	}
	return cuts
}

func leaderAlone(a *attack) []direction {
	leader := a.leader(a.rng)
	a.text = "isolated " + a.places[leader].Name
	return between([]int{leader}, a.others(a.rng, leader))
}

func flapping(ctx context.Context, a *attack) bool {
	i := a.rng.Intn(len(a.places))
	others := a.others(a.rng, i)
	cuts := between([]int{i}, others[:1+a.rng.Intn(len(others))])
	n := 0
	for ; n < 8 && ctx.Err() == nil; n++ {
		a.cut(cuts)
		a.wait(ctx, 30, 300)
		a.heal(cuts)
		a.wait(ctx, 30, 200)
	}
	a.text = fmt.Sprintf("%s cut and healed %d times", a.places[i].Name, n)
	return n > 0
}

// links are all between members, or those of one member.
func (a *attack) links() []direction {
	all := a.rng.Perm(len(a.places))
	if a.rng.Intn(2) == 0 {
		return between(all[:1], all[1:])
	}
	var list []direction
	for _, i := range all {
		for _, j := range all {
			if i != j {
				list = append(list, direction{i, j})
			}
		}
	}
	return list
}

func loss(ctx context.Context, a *attack) bool {
	links, percent := a.links(), 5+a.rng.Intn(46)
	set := func(percent int) {
		for _, d := range links {
			if err := a.mesh.Lose(d.from, d.to, percent); err != nil {
				a.rec.violate("loss: %v", err)
			}
		}
	}
	a.text = fmt.Sprintf("%d percent on %d links", percent, len(links))
	set(percent)
	a.wait(ctx, 500, 3000)
	set(0)
	return true
}

func slowLinks(ctx context.Context, a *attack) bool {
	links := a.links()
	delay := time.Duration(10+a.rng.Intn(200)) * time.Millisecond
	jitter, rate := time.Duration(a.rng.Intn(100))*time.Millisecond, 0
	if a.rng.Intn(3) == 0 {
		rate = 64 << 10
	}
	a.text = fmt.Sprintf("%v and up to %v on %d links, %d bytes a second", delay, jitter, len(links), rate)
	for _, d := range links {
		if err := a.mesh.Slow(d.from, d.to, delay, jitter, rate); err != nil {
			a.rec.violate("slow: %v", err)
		}
	}
	a.wait(ctx, 500, 3000)
	for _, d := range links {
		if err := a.mesh.Slow(d.from, d.to, 0, 0, 0); err != nil {
			a.rec.violate("slow: %v", err)
		}
	}
	return true
}

func resets(ctx context.Context, a *attack) bool {
	n := 0
	for range 1 + a.rng.Intn(6) {
		n += a.mesh.Reset(a.rng.Intn(len(a.places)))
		a.wait(ctx, 10, 300)
	}
	a.text = fmt.Sprintf("reset %d connections", n)
	return n > 0
}

func clientCut(ctx context.Context, a *attack) bool {
	i := a.rng.Intn(len(a.places))
	cuts := []direction{{network.Clients, i}, {i, network.Clients}}
	switch a.rng.Intn(3) {
	case 0:
		cuts = cuts[:1]
	case 1:
		cuts = cuts[1:] // Requests are carried out, answers do not come.
	}
	a.text = fmt.Sprintf("%s, %d directions", a.places[i].Name, len(cuts))
	a.cut(cuts)
	a.wait(ctx, 400, 2500)
	a.heal(cuts)
	return true
}
