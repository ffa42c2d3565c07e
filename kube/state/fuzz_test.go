package state_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// fill sets random fields of a message to random values, some of which mean something.
func fill(x *rand.Rand, m protoreflect.Message, depth int) {
	switch v := m.Interface().(type) { // Mostly what there is, so that it gets past the first look.
	case *kubepb.Ref:
		if x.IntN(4) > 0 {
			v.Kind, v.Namespace, v.Name = thing(x)
			return
		}
	case *kubepb.Object:
		if x.IntN(4) > 0 {
			v.Kind, v.Namespace, v.Name = thing(x)
			v.Encoding = kubepb.Encoding(x.IntN(2))
			v.Raw = objectOf(x, v)
			return
		}
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case x.IntN(4) == 0 || depth > 3:
		case f.IsMap():
		case depth == 0 && (f.Name() == "preconditions" || f.Name() == "fence") && x.IntN(4) > 0: // They hardly ever hold.
		case f.IsList():
			list := m.Mutable(f).List()
			for range x.IntN(3) {
				if f.Message() != nil {
					e := list.NewElement()
					fill(x, e.Message(), depth+1)
					list.Append(e)
				} else {
					list.Append(scalar(x, f))
				}
			}
		case f.Message() != nil:
			fill(x, m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, scalar(x, f))
		}
	}
}

// thing is something that there is, or could be.
func thing(x *rand.Rand) (kind, namespace, name string) {
	n := []string{"a", "b", "c"}[x.IntN(3)]
	switch x.IntN(4) {
	case 0:
		return "Pod", "default", "pod-" + n
	case 1:
		return "Node", "", "node-" + n
	case 2:
		k := api.Kinds[x.IntN(len(api.Kinds))]
		if !k.Namespaced {
			return k.Name, "", n
		}
		return k.Name, "default", n
	}
	return "Service", "default", n
}

// objectOf is the object that v names, with a spec out of nowhere.
func objectOf(x *rand.Rand, v *kubepb.Object) []byte {
	specs := []string{
		`{}`, `null`, `{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"1"}}}]}`, `{"containers":[{"name":"c","image":"i"}],"nodeName":"node-a"}`,
		`{"type":"NodePort","ports":[{"port":80}]}`, `{"type":"ExternalName","externalName":"a.b"}`, `{"clusterIP":"None"}`, `{"clusterIP":"10.96.0.9","ports":[{"port":1},{"port":2}]}`,
		`{"podCIDR":"10.128.3.0/24"}`, `{"finalizers":[]}`, `{"replicas":3,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}`,
		`{"minAvailable":1,"selector":{}}`, `{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80,"hostPort":80}]}],"priorityClassName":"a"}`,
	}
	statuses := []string{`{}`, `{"phase":"Failed"}`, `{"phase":"Running"}`, `{"allocatable":{"cpu":"2","pods":"3"}}`, `{"disruptionsAllowed":1,"observedGeneration":1}`}
	meta := []string{`{"name":%q,"namespace":%q}`, `{"name":%q,"namespace":%q,"finalizers":["a/b"],"labels":{"app":"web"}}`, `{"name":%q,"namespace":%q,"uid":"x"}`}
	text := fmt.Sprintf(`{"metadata":`+meta[x.IntN(len(meta))]+`,"spec":%s,"status":%s}`, v.Name, v.Namespace, specs[x.IntN(len(specs))], statuses[x.IntN(len(statuses))])
	if v.Encoding == kubepb.Encoding_JSON {
		return []byte(text)
	}
	k, err := api.ByName(v.Kind)
	if err != nil {
		return nil
	}
	o := k.New()
	if json.Unmarshal([]byte(text), o) != nil {
		return []byte(text)
	}
	raw, _ := api.Encode(o)
	if len(raw) > 0 && x.IntN(4) == 0 {
		raw[x.IntN(len(raw))] ^= byte(1 << x.IntN(8))
	}
	return raw
}

var words = []string{
	"", "Pod", "Node", "Secret", "Event", "Service", "default", "a", "p", "..", "a/b", "\x00", "spec.nodeName=a", "metadata.name=p", "app in (web", "!", "=", ",",
	"/holdfast/leader/scheduler/1", "%s", "AAAA", "-1", "v1", "apps/v1",
}

func scalar(x *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(words[x.IntN(len(words))])
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rawOf(x))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(x.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(x.IntN(5) - 1))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(x.Uint32()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64([]int64{0, 1, -1, 1 << 62, -1 << 63, int64(x.IntN(50))}[x.IntN(6)])
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(x.Uint64())
	}
	return f.Default()
}

// rawOf is an object, whole or damaged, or a patch.
func rawOf(x *rand.Rand) []byte {
	k := api.Kinds[x.IntN(len(api.Kinds))]
	o := k.New()
	o.SetName("p")
	if k.Namespaced {
		o.SetNamespace("default")
	}
	var raw []byte
	switch x.IntN(4) {
	case 0:
		raw, _ = api.EncodeJSON(o)
	case 1:
		return []byte([]string{`{"spec":null}`, `{"metadata":null}`, `[{"op":"remove","path":"/spec"}]`, `{"status":{}}`, `[]`, `null`, `{"spec":{"containers":[null]}}`, `{"metadata":{"labels":{"a":"b"}}}`, `{"metadata":{"finalizers":null}}`}[x.IntN(9)])
	default:
		raw, _ = api.Encode(o)
	}
	for range x.IntN(4) {
		if len(raw) > 0 {
			raw[x.IntN(len(raw))] = byte(x.Uint32())
		}
	}
	return raw
}

// TestNoRequestStopsTheService: whatever it is, it is answered.
func TestNoRequestStopsTheService(t *testing.T) {
	cluster := twoNodes(t)
	x, did := newRandom(t), map[string]int{}
	ids := []auth.Identity{auth.Admin("ann"), auth.Admin("bob"), auth.Admin("cyn"), auth.Controllers(), auth.Scheduler(), auth.Node("node-a"), {}}
	for i := range *requests {
		conn := cluster.Service.Dial(ids[x.IntN(len(ids))])
		rpc := kubepb.NewClusterStateClient(conn)
		methods := kubepb.File_holdfast_kubepb_clusterstate_proto.Services().ByName("ClusterState").Methods()
		m := methods.Get(i % methods.Len())
		if m.IsStreamingServer() {
			streamOnce(t, x, rpc, string(m.Name()))
			continue
		}
		request, answer := messageOf(t, m.Input()), messageOf(t, m.Output())
		fill(x, request.ProtoReflect(), 0)
		if conn.Invoke(t.Context(), "/kubepb.ClusterState/"+string(m.Name()), request, answer) == nil {
			did[string(m.Name())]++
		}
	}
	t.Log("succeeded:", did)
	if did["Create"]+did["Update"]+did["UpdateStatus"]+did["Delete"] == 0 {
		t.Errorf("not one write succeeded: %v", did)
	}
	if _, err := cluster.Client(auth.Admin("ann")).RPC().List(t.Context(), &kubepb.ListRequest{Kind: "Pod"}); err != nil {
		t.Error(err)
	}
	if drifts, err := cluster.Service.Audit(t.Context()); err != nil || len(drifts) > 0 {
		t.Errorf("ledgers: %v, %v", drifts, err)
	}
}

func messageOf(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	m, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return m.New().Interface()
}

func streamOnce(t *testing.T, x *rand.Rand, rpc kubepb.ClusterStateClient, name string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	switch name {
	case "Tunnel":
		r := &kubepb.TunnelRequest{}
		fill(x, r.ProtoReflect(), 0)
		if stream, err := rpc.Tunnel(ctx); err == nil && stream.Send(r) == nil {
			_, _ = stream.Recv()
		}
		return
	case "Session", "Connect":
		open := rpc.Session
		if name == "Connect" {
			open = rpc.Connect
		}
		stream, err := open(ctx)
		if err != nil {
			return
		}
		for range 3 {
			f := &kubepb.Frame{}
			fill(x, f.ProtoReflect(), 0)
			if stream.Send(f) != nil {
				break
			}
		}
		_ = stream.CloseSend()
		_, _ = stream.Recv()
		return
	case "Watch":
		r := &kubepb.WatchRequest{}
		fill(x, r.ProtoReflect(), 0)
		if r.ResourceVersion > 1000 {
			r.ResourceVersion = 1 // Later ones are waited for.
		}
		if stream, err := rpc.Watch(ctx, r); err == nil && r.ResourceVersion <= 0 {
			_, _ = stream.Recv()
		}
		return
	}
	r := &kubepb.HeartbeatRequest{}
	fill(x, r.ProtoReflect(), 0)
	if stream, err := rpc.Heartbeat(ctx); err == nil && stream.Send(r) == nil {
		_, _ = stream.Recv()
	}
}
