package auth

import (
	"slices"

	"github.com/holdfast-db/holdfast/kube/api"
)

// who is whom a row is for.
type who struct {
	name string
	is   func(r *Request) bool
}

// row permits.
type row struct {
	who   who
	verbs []Verb
	kinds []*api.Kind // Nil: any, and none.
	when  *condition  // Nil: always.
}

var (
	node        = who{"node", func(r *Request) bool { _, ok := r.Identity.NodeName(); return ok }}
	scheduler   = who{"scheduler", func(r *Request) bool { return r.Identity.Name == SchedulerUser }}
	apiserver   = who{"apiserver", func(r *Request) bool { return r.Identity.Name == APIServerUser }}
	controllers = who{"controllers", func(r *Request) bool { return r.Identity.Name == ControllersUser }}
	admin       = who{"admin", func(r *Request) bool { return r.in(AdminGroup) || r.in(MastersGroup) }}
	edit        = who{"edit", func(r *Request) bool { return r.in(EditGroup) || r.Namespace != "" && r.in(EditGroup+":"+r.Namespace) }}
	view        = who{"view", func(r *Request) bool { return r.in(ViewGroup) || edit.is(r) }}
)

func (r *Request) in(group string) bool { return slices.Contains(r.Identity.Groups, group) }

var (
	reads   = []Verb{Get, List, Watch}
	changes = []Verb{Create, Update, Delete}
	asks    = []Verb{Explain, Usage, Recovery}
	reaches = []Verb{Exec, Attach, Forward} // Into pods.

	// What belongs to the cluster and not to who uses it.
	users   = []*api.Kind{api.ConfigMap, api.Secret, api.Service, api.Endpoints, api.Budget, api.ReplicaSet, api.Deployment, api.Pod, api.Autoscaler, api.Lease, api.Event}
	visible = slices.DeleteFunc(slices.Clone(api.Kinds), func(k *api.Kind) bool { return k == api.Secret })
)

func kinds(k ...*api.Kind) []*api.Kind { return k }

// table is all that anybody may.
var table = []row{
	{node, reads, kinds(api.Node), itsOwnNode},
	{node, []Verb{List, Watch}, kinds(api.Node), allNodes},
	{node, []Verb{Create}, kinds(api.Node), itsOwnNodePlain},
	{node, []Verb{Update}, kinds(api.Node), itsOwnNodeLabels},
	{node, []Verb{Status}, kinds(api.Node), itsOwnNode},
	{node, reads, kinds(api.Pod), podsOnIt},
	{node, []Verb{Status}, kinds(api.Pod), podsOnIt},
	{node, []Verb{Delete}, kinds(api.Pod), podsOnItThatEnd},
	{node, []Verb{Create}, kinds(api.Pod), mirrorOfItsOwn},
	{node, []Verb{Delete}, kinds(api.Pod), mirrorsOnIt},
	{node, reads, kinds(api.Secret, api.ConfigMap), namedByItsPods},
	{node, reads, kinds(api.Service, api.Endpoints), nil},
	{node, []Verb{Create, Update}, kinds(api.Event), aboutItself},
	{node, []Verb{Heartbeat, Sample, Sign, Tunnel, Inventory}, nil, inItsOwnName},

	{scheduler, reads, kinds(api.Pod, api.Node, api.Priority), nil},
	{scheduler, []Verb{Bind}, kinds(api.Pod), nil},
	{scheduler, []Verb{Status}, kinds(api.Pod), conditionsOnly},
	{scheduler, []Verb{Create, Update}, kinds(api.Event), nil},
	{scheduler, []Verb{Recovery}, nil, nil},

	{apiserver, []Verb{Explain, Usage, Sample}, nil, nil},
	{apiserver, append([]Verb{Logs, Images}, reaches...), nil, nil},

	{controllers, append([]Verb{Status, Evict, Scale, Usage, Explain, Recovery, Recover}, append(reads, changes...)...), nil, nil},

	{admin, append([]Verb{Status, Bind, Evict, Scale, Usage, Explain, Sign, Recovery, Recover}, append(reads, changes...)...), nil, nil},
	{admin, append([]Verb{Logs}, reaches...), kinds(api.Pod), nil},
	{admin, []Verb{Images}, kinds(api.Node), nil},

	// Without Status: a pod that is said to have ended makes room on a node where it runs.
	{edit, append([]Verb{Evict, Scale}, append(reads, changes...)...), users, unboundPods},
	{edit, reaches, kinds(api.Pod), nil},
	{view, reads, visible, nil},
	{view, []Verb{Logs}, kinds(api.Pod), nil},
	{view, asks, nil, nil},
}
