package transport

// Roster packet: cluster, timeline, answerer, members (ID, incarnation,
// learner, name, peer URLs, client URLs), removed IDs.

import (
	"encoding/binary"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Roster is who is in the cluster, as one member knows it.
type Roster struct {
	Cluster  ident.ClusterID
	Timeline ident.Timeline
	Answerer ident.MemberID
	Members  []RosterMember
	Removed  []ident.MemberID
}

// RosterMember is one line of a roster.
type RosterMember struct {
	ID          ident.MemberID
	Name        string
	PeerURLs    []string
	ClientURLs  []string
	Learner     bool
	Incarnation uint64 // Not 0: this member was alive before, with this data directory.
}

// rosterMemberBytesMin is what the smallest member takes.
const rosterMemberBytesMin = 8 + 8 + 1 + 3

func (r *Roster) packet() []byte {
	b := []byte{packetRoster, protocolVersion}
	b = appendUint64(b, uint64(r.Cluster))
	b = appendUint64(b, uint64(r.Timeline))
	b = appendUint64(b, uint64(r.Answerer))
	b = binary.AppendUvarint(b, uint64(len(r.Members)))
	for _, m := range r.Members {
		b = appendUint64(b, uint64(m.ID))
		b = appendUint64(b, m.Incarnation)
		learner := byte(0)
		if m.Learner {
			learner = 1
		}
		b = append(b, learner)
		b = appendBytes(b, []byte(m.Name))
		b = appendTexts(b, m.PeerURLs)
		b = appendTexts(b, m.ClientURLs)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Removed)))
	for _, id := range r.Removed {
		b = appendUint64(b, uint64(id))
	}
	return seal(b, 0)
}

func decodeRoster(packet []byte) (*Roster, error) {
	d, err := openVersioned(packetRoster, packet)
	if err != nil {
		return nil, err
	}
	r := &Roster{
		Cluster:  ident.ClusterID(d.uint64()),
		Timeline: ident.Timeline(d.uint64()),
		Answerer: ident.MemberID(d.uint64()),
	}
	members := d.count(rosterMemberBytesMin)
	if members > rosterMembersMax {
		d.failed, members = true, 0
	}
	for range members {
		m := RosterMember{ID: ident.MemberID(d.uint64()), Incarnation: d.uint64()}
		learner := d.byte()
		m.Learner = learner == 1
		m.Name = d.text(urlBytesMax)
		m.PeerURLs = d.texts(urlsMax, urlBytesMax)
		m.ClientURLs = d.texts(urlsMax, urlBytesMax)
		if learner > 1 {
			d.failed = true
		}
		if d.failed {
			break
		}
		r.Members = append(r.Members, m)
	}
	for range d.count(8) {
		r.Removed = append(r.Removed, ident.MemberID(d.uint64()))
	}
	return r, d.end("roster")
}
