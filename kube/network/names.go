package network

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// names are what the kernel calls what belongs to a node. An interface's name has at
// most 15 bytes, so nodes and pods go in as hashes; the alias of a pod's interface
// says both in full.
type names struct {
	node string

	links     string // Prefix of all interfaces.
	own, peer string // The pair that carries the gateway address while there is no pod.
	vxlan     string
	table     string // Of nftables.
}

const (
	nodeHashChars = 5 // 25 bits: a machine has few nodes, and the alias tells them apart.
	podHashChars  = 8
)

func namesOf(node string) names {
	links := "hf" + hashOf(node, nodeHashChars)
	return names{node: node, links: links, own: links + "-n", peer: links + "-p", vxlan: links + "-v", table: "holdfast-" + hashOf(node, podHashChars) + "-pods"}
}

func (n names) pod(uid string) string { return n.links + hashOf(uid, podHashChars) }

func (n names) alias(uid string) string { return "holdfast " + n.node + " " + uid }

// uid is the pod that an alias names. Empty: none of this node.
func (n names) uid(alias string) string {
	uid, ok := strings.CutPrefix(alias, n.alias(""))
	if !ok {
		return ""
	}
	return uid
}

// ours reports whether an interface is one of a pod of this node, as far as its name
// tells.
func (n names) ours(link string) bool {
	return strings.HasPrefix(link, n.links) && len(link) == len(n.links)+podHashChars
}

func hashOf(s string, chars int) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:chars]
}
