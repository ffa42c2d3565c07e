package raftnodetest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/ident"
)

// Scenarios are scripts with their transcript. The clock of a line is in
// seconds, the member that it is about comes next.
func TestScenarios(t *testing.T) {
	for _, name := range []string{"life", "membership", "snapshot", "refused", "reads"} {
		t.Run(name, func(t *testing.T) {
			s := &scenario{t: t}
			golden.Script(t, "testdata/"+name+".txt", s.run)
		})
	}
}

type scenario struct {
	t     *testing.T
	c     *Cluster
	lines []string
}

func (s *scenario) run(cmd golden.Command) string {
	s.lines = nil
	handler, known := commands[cmd.Name]
	if !known {
		s.t.Fatalf("line %d: no command %s", cmd.Line, cmd.Name)
	}
	handler(s, cmd)
	return strings.Join(s.lines, "\n")
}

func (s *scenario) say(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func number(text string, otherwise int) int {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	return otherwise
}

func id(text string) ident.MemberID { return ident.MemberID(number(text, 0)) }

var commands = map[string]func(*scenario, golden.Command){
	"cluster": func(s *scenario, cmd golden.Command) {
		seed := uint64(number(cmd.Arg("seed"), 1))
		seedElections(s.t, seed)
		s.c = NewCluster(Config{
			Seed: seed, Members: number(cmd.Arg("members"), 3),
			DelayMin: 500, DelayMax: 600, SyncMin: 1000, SyncMax: 1100, ApplyMin: 100, ApplyMax: 110,
			CatchUpEntries: uint64(number(cmd.Arg("catchup"), 1000)), CheckpointTicks: number(cmd.Arg("checkpoint"), 0),
			Log: func(line string) { s.lines = append(s.lines, line) },
		})
		s.c.Run(1)
	},
	"run": func(s *scenario, cmd golden.Command) { s.c.Run(int64(number(cmd.Arg("ms"), 1000)) * 1000) },
	"put": func(s *scenario, cmd golden.Command) {
		var ops []*Op
		for _, a := range cmd.Args[1:] {
			ops = append(ops, s.c.Put(id(cmd.Arg("at")), a.Key))
		}
		s.wait(ops)
	},
	"fill": func(s *scenario, cmd golden.Command) {
		for i := range number(cmd.Arg("puts"), 0) {
			op := s.c.Put(id(cmd.Arg("at")), fmt.Sprint("f", i))
			s.c.RunUntil(s.c.now+1e6, func() bool { return op.Done })
		}
		s.lines = []string{fmt.Sprintf("log of %s is %d to %d", cmd.Arg("at"), s.c.members[id(cmd.Arg("at"))].Status().First, s.c.members[id(cmd.Arg("at"))].Status().Last)}
	},
	"read": func(s *scenario, cmd golden.Command) {
		done := false
		m := s.c.members[id(cmd.Arg("at"))]
		m.Read(func() {
			done = true
			s.c.logf(m, "reads at %d", m.published)
		})
		if !s.c.RunUntil(s.c.now+2e6, func() bool { return done }) {
			s.say("no answer in 2 s")
		}
	},
	"crash":   func(s *scenario, cmd golden.Command) { s.c.Crash(id(cmd.Args[0].Key), false) },
	"restart": func(s *scenario, cmd golden.Command) { s.c.Restart(id(cmd.Args[0].Key)) },
	"isolate": func(s *scenario, cmd golden.Command) { s.c.Isolate(id(cmd.Args[0].Key), true) },
	"refuse":  func(s *scenario, cmd golden.Command) { s.c.Refuse(id(cmd.Args[0].Key), true) },
	"take":    func(s *scenario, cmd golden.Command) { s.c.Refuse(id(cmd.Args[0].Key), false) },
	"heal":    func(s *scenario, cmd golden.Command) { s.c.Heal() },
	"cut": func(s *scenario, cmd golden.Command) {
		s.c.ConnectOneWay(id(cmd.Arg("from")), id(cmd.Arg("to")), false)
	},
	"transfer": func(s *scenario, cmd golden.Command) {
		s.c.members[id(cmd.Arg("from"))].Transfer(id(cmd.Arg("to")))
		s.c.Run(100_000)
	},
	"join": func(s *scenario, cmd golden.Command) { s.c.Join(id(cmd.Args[0].Key)) },
	"change": func(s *scenario, cmd golden.Command) {
		change := &raftpb.ConfChangeV2{}
		kinds := map[string]raftpb.ConfChangeType{
			"voter": raftpb.ConfChangeAddNode, "learner": raftpb.ConfChangeAddLearnerNode, "remove": raftpb.ConfChangeRemoveNode,
		}
		for _, a := range cmd.Args {
			if kind, known := kinds[a.Key]; known {
				change.Changes = append(change.Changes, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(uint64(id(a.Value)))})
			}
		}
		data := cmd.Arg("data")
		if data == "" {
			data = "change"
		}
		s.wait([]*Op{s.c.Change(id(cmd.Arg("at")), change, data)})
	},
	"status": func(s *scenario, cmd golden.Command) {
		for _, m := range s.c.Alive() {
			st := m.Status()
			s.say("%s %s term %d leader %s commit %d applied %d log %d-%d voters %v learners %v %x",
				m.id, st.Role, st.Term, st.Leader, st.Commit, m.published, st.First, st.Last, st.Voters, st.Learners, m.machine.Sum())
		}
	},
	"trace": func(s *scenario, cmd golden.Command) { s.say("%x", s.c.Trace()) },
}

func (s *scenario) wait(ops []*Op) {
	if !s.c.RunUntil(s.c.now+3e6, func() bool {
		for _, op := range ops {
			if !op.Done {
				return false
			}
		}
		return true
	}) {
		s.say("no answer in 3 s")
	}
}
