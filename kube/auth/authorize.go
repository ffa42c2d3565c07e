package auth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-db/holdfast/kube/api"
)

// Verb is what somebody wants to do.
type Verb string

// Verbs. Those above the line are about objects of a kind.
const (
	Get    Verb = "get"
	List   Verb = "list"
	Watch  Verb = "watch"
	Create Verb = "create"
	Update Verb = "update" // Patches too.
	Status Verb = "status" // Update of the status alone.
	Delete Verb = "delete"
	Bind   Verb = "bind"
	Scale  Verb = "scale"
	Evict  Verb = "evict"

	Heartbeat Verb = "heartbeat"
	Sign      Verb = "sign"
	Explain   Verb = "explain"
	Sample    Verb = "sample"
	Usage     Verb = "usage"
	Inventory Verb = "inventory"
	Recovery  Verb = "recovery" // To see what is to be decided after a restore.
	Recover   Verb = "recover"

	Tunnel  Verb = "tunnel" // And the sessions over it.
	Logs    Verb = "logs"
	Exec    Verb = "exec"
	Attach  Verb = "attach"
	Forward Verb = "port-forward"
	Images  Verb = "manage-images" // Of a node: to see, bring and remove them.
)

// Request is one thing that somebody wants to do.
type Request struct {
	Identity        Identity
	Verb            Verb
	Kind            *api.Kind // Nil for verbs that are about no kind.
	Namespace, Name string    // Of lists and watches: what the selectors pin them to.
	NodeName        string    // The node that the selectors of a list pin spec.nodeName to; whose heartbeat, sample or tunnel it is.
	Old, New        api.Object
}

// Facts are what conditions ask of the cluster.
type Facts interface {
	// PodNode is the node that a pod is bound to; empty if there is no such pod, or it has none.
	PodNode(namespace, name string) string
	// Names reports whether a pod on the node names the Secret or ConfigMap.
	Names(node string, k *api.Kind, namespace, name string) bool
}

// Denied says who may not do what, and which row would have to be there.
type Denied struct {
	Request *Request
	Unmet   []string // Conditions of rows that would have permitted it.
}

// Object is what the request is about, for messages.
func (d *Denied) Object() string {
	r := d.Request
	kind := "-"
	if r.Kind != nil {
		kind = r.Kind.Name
	}
	name := r.Name
	if name == "" {
		name = r.NodeName
	}
	switch {
	case r.Namespace != "":
		return kind + " " + r.Namespace + "/" + name
	case name != "":
		return kind + " " + name
	}
	return kind
}

// Missing is the row that is not there.
func (d *Denied) Missing() string {
	if len(d.Unmet) > 0 {
		return "the rows that would permit it ask that " + strings.Join(d.Unmet, ", or that ")
	}
	kind := "-"
	if d.Request.Kind != nil {
		kind = d.Request.Kind.Name
	}
	return fmt.Sprintf("there is no row (%s, %s, %s)", d.Request.Identity.who(), d.Request.Verb, kind)
}

func (d *Denied) Error() string {
	return fmt.Sprintf("%q may not %s %s: %s", d.Request.Identity.Name, d.Request.Verb, d.Object(), d.Missing())
}

// Authorize returns nil or a *Denied.
func Authorize(r *Request, f Facts) error {
	var unmet []string
	for i := range table {
		row := &table[i]
		if !row.who.is(r) || !slices.Contains(row.verbs, r.Verb) || !row.covers(r.Kind) {
			continue
		}
		if row.when == nil || row.when.holds(r, f) {
			return nil
		}
		if !slices.Contains(unmet, row.when.text) {
			unmet = append(unmet, row.when.text)
		}
	}
	return &Denied{Request: r, Unmet: unmet}
}

func (w *row) covers(k *api.Kind) bool {
	if w.kinds == nil {
		return true
	}
	return slices.Contains(w.kinds, k)
}

// who says for messages as what an identity is known.
func (i Identity) who() string {
	if _, ok := i.NodeName(); ok {
		return "node"
	}
	switch i.Name {
	case SchedulerUser, ControllersUser, APIServerUser:
		return i.Name
	}
	if len(i.Groups) == 0 {
		return "a user of no group"
	}
	return strings.Join(i.Groups, "+")
}
