package server

import (
	"fmt"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/mvcc"
)

func TestTheVerdictOfDigests(t *testing.T) {
	a, b, c := ident.Digest{1}, ident.Digest{2}, ident.Digest{3}
	at := func(pairs ...any) (list []mvcc.DigestAt) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, mvcc.DigestAt{Index: ident.Index(pairs[i].(int)), Digest: pairs[i+1].(ident.Digest)})
		}
		return list
	}
	for _, test := range []struct {
		what    string
		voters  int
		reports map[ident.MemberID][]mvcc.DigestAt
		want    string
	}{
		{"all agree", 3, map[ident.MemberID][]mvcc.DigestAt{1: at(32, a), 2: at(32, a), 3: at(32, a)}, "[] false"},
		{"one of three differs", 3, map[ident.MemberID][]mvcc.DigestAt{1: at(32, a), 2: at(32, b), 3: at(32, a)}, "[2] false"},
		{"the one that asks differs", 3, map[ident.MemberID][]mvcc.DigestAt{1: at(32, b), 2: at(32, a), 3: at(32, a)}, "[1] false"},
		{"one of three is silent", 3, map[ident.MemberID][]mvcc.DigestAt{1: at(32, a), 2: at(32, b)}, "[] true"},
		{"one of two differs", 2, map[ident.MemberID][]mvcc.DigestAt{1: at(32, a), 2: at(32, b)}, "[] true"},
		{"all of three differ", 3, map[ident.MemberID][]mvcc.DigestAt{1: at(32, a), 2: at(32, b), 3: at(32, c)}, "[] true"},
		{"two of five, both otherwise", 5, map[ident.MemberID][]mvcc.DigestAt{1: at(32, a), 2: at(32, b), 3: at(32, a), 4: at(32, c), 5: at(32, a)}, "[2 4] false"},
		{"a learner differs", 3, map[ident.MemberID][]mvcc.DigestAt{1: at(32, a), 2: at(32, a), 3: at(32, a), 9: at(32, b)}, "[9] false"},
		{"learners have no vote", 3, map[ident.MemberID][]mvcc.DigestAt{1: at(32, a), 8: at(32, b), 9: at(32, b)}, "[] false"},
		{"different entries prove nothing", 3, map[ident.MemberID][]mvcc.DigestAt{1: at(32, a), 2: at(64, b), 3: at(96, c)}, "[] false"},
		{"an older entry decides", 3, map[ident.MemberID][]mvcc.DigestAt{1: at(64, b, 32, a), 2: at(64, c, 32, c), 3: at(32, a)}, "[2] false"},
		{"a report that says a thing twice", 3, map[ident.MemberID][]mvcc.DigestAt{1: at(32, a), 2: at(32, b, 32, b), 3: at(64, a)}, "[] true"},
	} {
		var voters []ident.MemberID
		for i := range test.voters {
			voters = append(voters, ident.MemberID(i+1))
		}
		v := judge(test.reports, voters)
		wrong := []uint64{}
		for _, id := range v.wrong {
			wrong = append(wrong, uint64(id))
		}
		if got := fmt.Sprint(wrong, v.split); got != test.want {
			t.Errorf("%s: %s, want %s", test.what, got, test.want)
		}
	}
}

func TestDigestsTravelAsTheyAre(t *testing.T) {
	list := []mvcc.DigestAt{{Index: 7, Digest: ident.Digest{1, 2}}, {Index: 32, Digest: ident.Digest{9}}}
	got, err := decodeDigests(encodeDigests(list))
	if err != nil || fmt.Sprint(got) != fmt.Sprint(list) {
		t.Fatalf("%v, %v", got, err)
	}
	for _, size := range []int{0, 1, digestBytes - 1, digestBytes + 1, (digestsReported + 2) * digestBytes} {
		if _, err := decodeDigests(make([]byte, size)); err == nil {
			t.Errorf("%d bytes pass for digests", size)
		}
	}
}

// Of three voters one has rotted and one is at another compaction just now: who is
// wrong is found the next time, and an alarm for nobody in particular would stay.
func TestNobodyIsBlamedWhileAVoterIsAtAnotherCompaction(t *testing.T) {
	hashes := map[ident.Digest][]ident.MemberID{{1}: {1}, {2}: {2}}
	voters := []ident.MemberID{1, 2, 3}
	if v := judgeHashes(7, hashes, voters, true); v.split || len(v.wrong) > 0 {
		t.Errorf("while the third is elsewhere: %+v", v)
	}
	if v := judgeHashes(7, hashes, voters, false); !v.split {
		t.Errorf("when the third is silent: %+v", v)
	}
	hashes[ident.Digest{1}] = []ident.MemberID{1, 3}
	if v := judgeHashes(7, hashes, voters, true); v.split || len(v.wrong) != 1 || v.wrong[0] != 2 {
		t.Errorf("with a quorum: %+v", v)
	}
}
