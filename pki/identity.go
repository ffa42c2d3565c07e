package pki

import (
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"strings"
)

// Who is who in a cluster: the subject of a client certificate is an identity,
// its organizations are groups.
const (
	SchedulerUser   = "system:scheduler"
	ControllersUser = "system:controllers"
	APIServerUser   = "system:apiserver"
	ProxyUser       = "system:kube-proxy"

	NodesGroup  = "system:nodes"
	ProxyGroup  = "system:node-proxier"
	AdminsGroup = "system:masters" // May do everything, whatever the rules say.

	NodePrefix = "system:node:" // Of the common name of a node.
)

// NodeSubject is the subject of a node's certificates.
func NodeSubject(node string) pkix.Name {
	return pkix.Name{CommonName: NodePrefix + node, Organization: []string{NodesGroup}}
}

// UserSubject is the subject of a person or program, and of its groups.
func UserSubject(user string, groups ...string) pkix.Name {
	return pkix.Name{CommonName: user, Organization: groups}
}

// NodeOf tells which node a subject names. Both parts must be there: a user
// called like a node is none.
func NodeOf(subject pkix.Name) (node string, ok bool) {
	node, ok = strings.CutPrefix(subject.CommonName, NodePrefix)
	return node, ok && slices.Contains(subject.Organization, NodesGroup) && CheckNodeName(node) == nil
}

// CheckNodeName says what is wrong with the name of a node, which is a DNS name
// in lower case.
func CheckNodeName(node string) error {
	if node == "" || len(node) > nameBytesMax || strings.ToLower(node) != node || strings.ContainsAny(node, "*_") || checkName(node) != nil {
		return fmt.Errorf("%w: node name %q is not a DNS name in lower case of at most %d bytes", ErrRequest, node, nameBytesMax)
	}
	return nil
}

// sameSubject tells whether two subjects are one identity: nothing but a common
// name and organizations, which are the same.
func sameSubject(a, b pkix.Name) bool {
	return a.CommonName == b.CommonName && slices.Equal(slices.Sorted(slices.Values(a.Organization)), slices.Sorted(slices.Values(b.Organization)))
}

// CheckSubject refuses a subject that is not exactly who asks. Other parts than
// common name and organization are no identity here.
func CheckSubject(asked, caller pkix.Name) error {
	if !sameSubject(asked, caller) {
		return fmt.Errorf("%w: the request is for %s, but %s asks: each gets certificates for itself only", ErrNotAllowed, describe(asked), describe(caller))
	}
	return nil
}

func describe(n pkix.Name) string {
	if len(n.Organization) == 0 {
		return fmt.Sprintf("%q", n.CommonName)
	}
	return fmt.Sprintf("%q of %s", n.CommonName, strings.Join(n.Organization, ", "))
}
