package member

import (
	"crypto/sha1"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// InitialID is the ID of a member named in the first configuration: every host
// computes it alone, from its peer URLs and the cluster token, and all agree.
func InitialID(peerURLs []string, token string) ident.MemberID {
	return hashID(peerURLs, token)
}

// AddedID is the ID of a member that joins a running cluster. The time, unix
// seconds, keeps a member that was removed and added again from getting the ID
// it had before.
func AddedID(peerURLs []string, unixSeconds int64) ident.MemberID {
	return hashID(peerURLs, strconv.FormatInt(unixSeconds, 10))
}

// ClusterID is the ID of the cluster that was started with these members. It
// does not change when members come and go.
func ClusterID(initial []ident.MemberID) ident.ClusterID {
	ids := slices.Clone(initial)
	slices.Sort(ids)
	b := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, uint64(id))
	}
	sum := sha1.Sum(b)
	return ident.ClusterID(binary.BigEndian.Uint64(sum[:8]))
}

func hashID(peerURLs []string, suffix string) ident.MemberID {
	urls := slices.Clone(peerURLs)
	slices.Sort(urls)
	sum := sha1.Sum([]byte(strings.Join(urls, "") + suffix))
	return ident.MemberID(binary.BigEndian.Uint64(sum[:8]))
}
