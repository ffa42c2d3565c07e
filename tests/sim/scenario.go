package sim

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/raftnode/raftnodetest"
)

// Config says what a world is like. It follows from the seed.
type Config struct {
	Seed     uint64
	Beyond   bool // The fault budget is overdrawn.
	Voters   int
	Clients  int
	Watchers int // Of the clients, those that also watch.
	Keys     int
	Skew     int
	Users    int `json:",omitempty"` // Beside root. 0: authentication stays off.

	ThinkMin, ThinkMax int64
	ClientTimeout      int64
	SafetyTime         int64

	CatchUp            uint64
	WALBytes           int64
	SegmentBytes       int64
	RingBytes          int64
	CheckpointBytes    int64
	CheckpointInterval int64
	StreamBytes        int

	DelayMin, DelayMax int64
	SyncMin, SyncMax   int64
	ApplyMin, ApplyMax int64
	Loss, Duplicate    int
	Reorder            bool
	RatePPM            []int64 // Of the members' clocks.

	plant string // A kind of fault that fails the run, to test what comes after a failure.
}

func (c *Config) ratePPM(id ident.MemberID) int64 {
	return c.RatePPM[uint64(id)%uint64(len(c.RatePPM))]
}

func (c *Config) checkpointInterval() time.Duration { return durationOf(c.CheckpointInterval) }

// Action is one fault or administrative act. What the numbers mean depends on
// the kind; whom it hits is decided when it happens.
type Action struct {
	At   int64  `json:"at"`
	Kind string `json:"kind"`
	For  int64  `json:"for,omitempty"`
	A    uint32 `json:"a"`
	B    uint32 `json:"b"`
}

func (a *Action) String() string {
	return fmt.Sprintf("%10s  %-3s for %s s (%d, %d)  %s", clockText(a.At), a.Kind, clockText(a.For), a.A, a.B, faultName(a.Kind))
}

func faultName(id string) string {
	i := slices.IndexFunc(faultNames, func(f struct{ id, name string }) bool { return f.id == id })
	if i < 0 {
		return ""
	}
	return faultNames[i].name
}

// Scenario is all that a run follows from.
type Scenario struct {
	Config  Config
	Actions []Action
	Note    string `json:",omitempty"` // What it once found.
}

// ReadScenario reads a stored one.
func ReadScenario(data []byte) (*Scenario, error) {
	s := &Scenario{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	for _, a := range s.Actions {
		if faults[a.Kind].do == nil {
			return nil, fmt.Errorf("scenario has a fault %q; known are %s", a.Kind, strings.Join(SortedKeys(faults), ", "))
		}
	}
	return s, nil
}

// Expand makes a scenario of a seed.
func Expand(seed uint64, beyond bool) *Scenario {
	r := stream(seed, "scenario")
	s := &Scenario{Config: drawConfig(r, seed)}
	s.Config.Beyond = beyond
	s.draw(r)
	if u := stream(seed, "users"); u.Chance(40) {
		s.Config.Users = 1 + u.Below(4)
	}
	return s
}

// pick draws a number from lo to hi, evenly on a logarithmic scale.
func pick(r *raftnodetest.Random, lo, hi int64) int64 {
	if hi <= lo {
		return lo
	}
	f := float64(r.Next()>>11) / (1 << 53)
	return int64(float64(lo) * math.Pow(float64(hi)/float64(lo), f))
}

func drawConfig(r *raftnodetest.Random, seed uint64) Config {
	c := Config{
		Seed: seed, Voters: []int{1, 3, 3, 3, 3, 3, 3, 5, 5, 5}[r.Below(10)],
		Clients: 4 + r.Below(9), Keys: int(pick(r, 4, 200)), Skew: r.Below(4),
		ThinkMin: 10 * millisecond, ThinkMax: pick(r, 20*millisecond, 200*millisecond),
		ClientTimeout: pick(r, second, 8*second), SafetyTime: 40 * second,
		CatchUp:      uint64(pick(r, 5, 500)),
		WALBytes:     pick(r, 32<<10, 256<<10),
		SegmentBytes: pick(r, 16<<10, 512<<10), RingBytes: pick(r, 16<<10, 256<<10),
		CheckpointBytes: pick(r, 4<<10, 256<<10), CheckpointInterval: pick(r, 500*millisecond, 10*second),
		StreamBytes: int(pick(r, 1<<10, 256<<10)),
		DelayMin:    200, DelayMax: pick(r, 1*millisecond, 20*millisecond),
		SyncMin: 200, SyncMax: pick(r, 500, 20*millisecond),
		ApplyMin: 20, ApplyMax: pick(r, 100, 10*millisecond),
		Reorder: r.Chance(30),
	}
	c.Watchers = r.Below(c.Clients + 1)
	if r.Chance(40) {
		c.Loss = r.Below(8)
	}
	if r.Chance(40) {
		c.Duplicate = r.Below(8)
	}
	for range 16 {
		c.RatePPM = append(c.RatePPM, int64(r.Below(2000))-1000)
	}
	return c
}

// draw makes the schedule. Which kinds there are, and how dense, differs by
// seed: a world of few kinds goes deeper into what they do to each other.
func (s *Scenario) draw(r *raftnodetest.Random) {
	var kinds []string
	var weights []int
	total := 0
	share := 25 + r.Below(76)
	for _, id := range SortedKeys(faults) {
		f := faults[id]
		if f.weight == 0 || f.quorum && s.Config.Voters == 1 || !r.Chance(share) {
			continue
		}
		kinds, weights = append(kinds, id), append(weights, f.weight)
		total += f.weight
	}
	gap := pick(r, 300*millisecond, 4*second)
	for at := int64(2 * second); at < s.Config.SafetyTime && total > 0; at += pick(r, gap/4+1, gap*2) {
		n := r.Below(total)
		i := 0
		for n >= weights[i] {
			n -= weights[i]
			i++
		}
		f := faults[kinds[i]]
		s.Actions = append(s.Actions, Action{
			At: at, Kind: kinds[i], For: pick(r, max(f.least, 50*millisecond), max(f.most, 100*millisecond)),
			A: uint32(r.Next()), B: uint32(r.Next()),
		})
	}
}

// String is the scenario for people.
func (s *Scenario) String() string {
	var b strings.Builder
	data, err := json.Marshal(&s.Config)
	if err != nil {
		return err.Error()
	}
	fmt.Fprintf(&b, "config %s\n", data)
	for i := range s.Actions {
		fmt.Fprintf(&b, "%s\n", &s.Actions[i])
	}
	return b.String()
}
