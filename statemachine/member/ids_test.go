package member

import (
	"crypto/sha1"
	"encoding/binary"
	"testing"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Hosts compute these apart from each other, and so do those of etcd.
func TestIDsAreHashesOfAddresses(t *testing.T) {
	hash := func(s string) uint64 {
		sum := sha1.Sum([]byte(s))
		return binary.BigEndian.Uint64(sum[:8])
	}
	a := InitialID([]string{"http://b:1", "http://a:1"}, "token")
	for name, c := range map[string]struct {
		got  ident.MemberID
		want string
	}{
		"a first member: its URLs in order and the token":            {a, "http://a:1http://b:1token"},
		"one without a token":                                        {InitialID([]string{"http://a:1"}, ""), "http://a:1"},
		"one that is added later: the seconds in place of the token": {AddedID([]string{"http://b:1", "http://a:1"}, 1700000000), "http://a:1http://b:11700000000"},
	} {
		if uint64(c.got) != hash(c.want) {
			t.Errorf("%s: %x, want %x", name, uint64(c.got), hash(c.want))
		}
	}
	sum := sha1.Sum([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0, 0, 0, 0, 0, 0, 3})
	want := ident.ClusterID(binary.BigEndian.Uint64(sum[:8]))
	if got := ClusterID([]ident.MemberID{0xff00000000000003, 2, 1}); got != want {
		t.Errorf("a cluster: %x, want %x", uint64(got), uint64(want))
	}
}
