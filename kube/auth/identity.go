package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/holdfast-db/holdfast/pki"
)

// Names of the parts of a cluster, and of groups.
const (
	SchedulerUser   = pki.SchedulerUser
	ControllersUser = pki.ControllersUser
	APIServerUser   = pki.APIServerUser // Of another server, which passes on what it has authorized.

	NodesGroup   = pki.NodesGroup
	MastersGroup = pki.AdminsGroup // As admin.
	AdminGroup   = "admin"
	EditGroup    = "edit" // "edit:NAMESPACE": there only.
	ViewGroup    = "view"

	// FleetGroup is that of processes that are many simulated nodes: "system:fleet:PREFIX"
	// says in each call which node PREFIX-… it is, and may do what that one may.
	FleetGroup  = "system:fleets"
	FleetPrefix = "system:fleet:"

	// NodeHeader is where a fleet says so, in the metadata of a call.
	NodeHeader = "holdfast-node"
)

// ErrNoIdentity is that of a caller without a client certificate.
var ErrNoIdentity = errors.New("no client certificate that names who calls")

// Identity is who calls.
type Identity struct {
	Name   string // Common name.
	Groups []string
}

// Node is the identity of a node.
func Node(name string) Identity {
	return Identity{Name: pki.NodePrefix + name, Groups: []string{NodesGroup}}
}

// Scheduler and Controllers are those of the parts of the control plane, Admin that
// of a person who may do everything.
func Scheduler() Identity        { return Identity{Name: SchedulerUser} }
func Controllers() Identity      { return Identity{Name: ControllersUser} }
func Admin(name string) Identity { return Identity{Name: name, Groups: []string{AdminGroup}} }

// NodeName is the node that an identity is of. Both the name and the group must say
// so: a user called like a node is none.
func (i Identity) NodeName() (string, bool) {
	name, ok := strings.CutPrefix(i.Name, pki.NodePrefix)
	return name, ok && name != "" && slices.Contains(i.Groups, NodesGroup)
}

// FromCertificate reads an identity.
func FromCertificate(c *x509.Certificate) (Identity, error) {
	if c == nil || c.Subject.CommonName == "" {
		return Identity{}, ErrNoIdentity
	}
	return Identity{Name: c.Subject.CommonName, Groups: slices.Clone(c.Subject.Organization)}, nil
}

type identityKey struct{}

// With gives calls of this process an identity. No remote caller can set it.
func With(ctx context.Context, i Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, i)
}

// Of is who makes a call: what With said, or the verified client certificate of the
// connection.
func Of(ctx context.Context) (Identity, error) {
	if i, ok := ctx.Value(identityKey{}).(Identity); ok {
		return i, nil
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, ErrNoIdentity
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return Identity{}, ErrNoIdentity
	}
	id, err := FromCertificate(info.State.VerifiedChains[0][0])
	if err != nil {
		return Identity{}, err
	}
	return id.speakingFor(metadata.ValueFromIncomingContext(ctx, NodeHeader)), nil
}

// speakingFor is the node that a fleet speaks for. Everybody else speaks for himself.
func (i Identity) speakingFor(nodes []string) Identity {
	prefix, ok := strings.CutPrefix(i.Name, FleetPrefix)
	if !ok || prefix == "" || !slices.Contains(i.Groups, FleetGroup) || len(nodes) != 1 || !strings.HasPrefix(nodes[0], prefix+"-") {
		return i
	}
	return Node(nodes[0])
}
