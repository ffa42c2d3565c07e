package recovery

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
)

// sampleFacts have every field set.
func sampleFacts() *Facts {
	four := voters(1, 2, 3, 4)
	m := survivor(1, voters(1, 2, 3), 98, Mark{99, 2}, Mark{100, 3})
	m.WALDir, m.Incarnation, m.Frozen, m.Staged = "/fast/m1", 0xf00d, "tests", "12ab"
	m.Damage = []Damage{{Part: "identity", What: "a reason"}}
	m.Log.Vote, m.Log.Cut, m.Log.Failed = 2, &Cut{Bytes: 77, Seen: 101}, true
	m.Log.Changes = []Change{{Index: 1}, {Index: 100, After: &four}}
	m.Log.Tail[0].Time = collectedAt
	m.Log.Tail[0].Requests = []Request{{What: "delete", Key: []byte("a\xff"), End: []byte("b")}}
	m.Peers[0].ClientURLs, m.Peers[0].Learner, m.Peers[0].Incarnation = []string{"http://m1:2379"}, true, 0xf00d
	return &Facts{Members: []Member{m}}
}

func samplePlan(t testing.TB) *Plan {
	t.Helper()
	m := survivor(1, voters(1, 2, 3), 99, Mark{100, 3})
	p, err := NewPlan(&Facts{Members: []Member{m}}, askOf("m2", "m3"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheBytesOfVersionOne(t *testing.T) {
	p := samplePlan(t)
	for kind, v := range map[string]any{kindFacts: sampleFacts(), kindPlan: p, kindJournal: &journal{Stage: stageBuilt, Plan: p}} {
		text, err := encode(kind, v)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", "v1", kind+".json")
		golden.File(t, file, string(text))
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		back := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := decode(kind, data, back); err != nil || !reflect.DeepEqual(back, v) {
			t.Errorf("%s comes back as %+v, %v", kind, back, err)
		}
	}
}

func TestALaterVersionIsRefusedByName(t *testing.T) {
	text, err := json.Marshal(document{Kind: kindPlan, Format: FormatVersion + 1, Body: json.RawMessage(`{"new":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodePlan(text); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("got %v", err)
	}
}

// FuzzDocuments reads anything as each kind, behind a checksum that holds or not.
// What is accepted comes back the same, and can be planned with and printed.
func FuzzDocuments(f *testing.F) {
	facts, err := json.Marshal(sampleFacts())
	if err != nil {
		f.Fatal(err)
	}
	plan, err := json.Marshal(samplePlan(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(facts, true)
	f.Add(plan, true)
	f.Add([]byte(`{"members":[{"state":{"applied":{"index":3,"term":1},"configuration":{"voters":["1"]}}}]}`), true)
	text, err := EncodePlan(samplePlan(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, false)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		as := func(kind string) []byte {
			if !seal || !json.Valid(data) {
				return data
			}
			text, err := encode(kind, json.RawMessage(data))
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		if facts, err := DecodeFacts(as(kindFacts)); err == nil {
			text, err := EncodeFacts(facts)
			if err != nil {
				return // A time that JSON cannot hold.
			}
			if _, err := DecodeFacts(text); err != nil {
				t.Errorf("facts do not come back: %v", err)
			}
			ask := askOf("m2", "m3")
			if len(facts.Members) > 0 {
				ask.Now = facts.Members[0].Collected
			}
			if p, err := NewPlan(facts, ask); err == nil {
				if _, err := p.check(p.ID); err != nil {
					t.Errorf("a plan that was made is refused: %v", err)
				}
			}
		}
		if p, err := DecodePlan(as(kindPlan)); err == nil {
			if text, err := p.Text(); err == nil && text == "" {
				t.Error("a plan without words")
			}
			p.check(p.ID)
		}
		var j journal
		_ = decode(kindJournal, as(kindJournal), &j)
	})
}
