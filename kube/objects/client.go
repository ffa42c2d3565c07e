package objects

import (
	"context"
	"fmt"
	"reflect"

	"google.golang.org/grpc"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Client reads and writes objects. It is safe for use by many goroutines.
type Client struct {
	rpc     kubepb.ClusterStateClient
	sharer  Sharer // Nil: objects come over a network.
	manager string
}

// Sharer is a connection within a process, whose other end may have an object decoded.
type Sharer interface {
	// Decoded is the object of a message, which nobody may change; nil: it is not there.
	Decoded(*kubepb.Object) api.Object
}

// New returns a client over a connection. Manager says who writes, for people.
func New(cc grpc.ClientConnInterface, manager string) *Client {
	sharer, _ := cc.(Sharer)
	return &Client{rpc: kubepb.NewClusterStateClient(cc), sharer: sharer, manager: manager}
}

// RPC is the service itself, for what has no method here.
func (c *Client) RPC() kubepb.ClusterStateClient { return c.rpc }

// Option is what a write depends on beside its object, and how it is done. Given
// more than one, the fields that are set add up.
type Option struct {
	UID             string // The object must have it.
	ResourceVersion int64  // The object must have it.
	Guards          []*kubepb.Guard
	Fence           *kubepb.Fence
	DryRun          bool
	Grace           *int64 // Of a delete, in seconds. Nil: the object's own.
	Propagation     kubepb.DeleteRequest_Propagation
}

func combine(options []Option) Option {
	var all Option
	for _, o := range options {
		if o.UID != "" {
			all.UID = o.UID
		}
		if o.ResourceVersion != 0 {
			all.ResourceVersion = o.ResourceVersion
		}
		all.Guards = append(all.Guards, o.Guards...)
		if o.Fence != nil {
			all.Fence = o.Fence
		}
		all.DryRun = all.DryRun || o.DryRun
		if o.Grace != nil {
			all.Grace = o.Grace
		}
		if o.Propagation != 0 {
			all.Propagation = o.Propagation
		}
	}
	return all
}

func (o *Option) preconditions() *kubepb.Preconditions {
	if o.UID == "" && o.ResourceVersion == 0 && o.Fence == nil && len(o.Guards) == 0 {
		return nil
	}
	return &kubepb.Preconditions{Uid: o.UID, ResourceVersion: o.ResourceVersion, Guards: o.Guards, Fence: o.Fence}
}

// ListOptions says which objects are meant.
type ListOptions struct {
	Namespace       string // Empty: of all.
	Labels, Fields  string // Selectors.
	ResourceVersion int64  // At least as new as this. 0: as of now.
	Limit           int64  // Objects in one answer. List asks for all the answers.
}

// kindOf is the kind of a type of objects.
func kindOf[T api.Object]() (*api.Kind, error) {
	var none T
	if t := reflect.TypeOf(none); t != nil && t.Kind() == reflect.Pointer {
		if k := api.KindOf(none); k != nil {
			return k, nil
		}
	}
	return nil, fmt.Errorf("%T: %w", none, ErrKind)
}

func refOf(k *api.Kind, namespace, name string) *kubepb.Ref {
	return &kubepb.Ref{Kind: k.Name, Namespace: namespace, Name: name}
}

func decode[T api.Object](k *api.Kind, m *kubepb.Object) (T, error) {
	var none T
	o, err := api.Decode(k, m.GetRaw(), m.GetResourceVersion())
	if err != nil {
		return none, err
	}
	return o.(T), nil
}

func encode(k *api.Kind, o api.Object) (*kubepb.Object, error) {
	version, err := api.ParseVersion(o.GetResourceVersion())
	if err != nil {
		return nil, err
	}
	raw, err := api.Encode(o)
	if err != nil {
		return nil, err
	}
	return &kubepb.Object{
		ApiVersion: k.APIVersion, Kind: k.Name, Namespace: o.GetNamespace(), Name: o.GetName(), ResourceVersion: version, Raw: raw,
	}, nil
}

// Get reads one object as it is now.
func Get[T api.Object](ctx context.Context, c *Client, namespace, name string) (T, error) {
	k, err := kindOf[T]()
	if err != nil {
		var none T
		return none, err
	}
	return get[T](ctx, c, k, namespace, name)
}

func get[T api.Object](ctx context.Context, c *Client, k *api.Kind, namespace, name string) (T, error) {
	m, err := c.rpc.Get(ctx, &kubepb.GetRequest{Object: refOf(k, namespace, name)})
	if err != nil {
		var none T
		return none, fromWire(err)
	}
	return decode[T](k, m)
}

// List reads objects, all as of the revision that it returns.
func List[T api.Object](ctx context.Context, c *Client, o ListOptions) ([]T, int64, error) {
	k, err := kindOf[T]()
	if err != nil {
		return nil, 0, err
	}
	return list[T](ctx, c, k, o)
}

func list[T api.Object](ctx context.Context, c *Client, k *api.Kind, o ListOptions) ([]T, int64, error) {
	request := &kubepb.ListRequest{
		Kind: k.Name, Namespace: o.Namespace, LabelSelector: o.Labels, FieldSelector: o.Fields, ResourceVersion: o.ResourceVersion, Limit: o.Limit,
	}
	var all []T
	for {
		answer, err := c.rpc.List(ctx, request)
		if err != nil {
			return nil, 0, fromWire(err)
		}
		for _, m := range answer.Items {
			item, err := decode[T](k, m)
			if err != nil {
				return nil, 0, err
			}
			all = append(all, item)
		}
		if answer.Continue == "" {
			return all, answer.ResourceVersion, nil
		}
		request.Continue = answer.Continue
	}
}

// written is what a write answers: the object as it is now.
func written[T api.Object](k *api.Kind, answer *kubepb.WriteResponse, err error) (T, error) {
	var none T
	if err != nil {
		return none, err
	}
	return decode[T](k, answer.GetObject())
}

// Create makes an object, and returns it with what the server filled in.
func Create[T api.Object](ctx context.Context, c *Client, object T, options ...Option) (T, error) {
	k, err := kindOf[T]()
	if err != nil {
		var none T
		return none, err
	}
	answer, err := c.create(ctx, k, object, options)
	return written[T](k, answer, err)
}

func (c *Client) create(ctx context.Context, k *api.Kind, object api.Object, options []Option) (*kubepb.WriteResponse, error) {
	m, err := encode(k, object)
	if err != nil {
		return nil, err
	}
	o := combine(options)
	return answer(c.rpc.Create(ctx, &kubepb.CreateRequest{Object: m, DryRun: o.DryRun, Manager: c.manager, Preconditions: o.preconditions()}))
}

// Update replaces an object. The resource version that it carries must be the
// newest; one without replaces whatever is there.
func Update[T api.Object](ctx context.Context, c *Client, object T, options ...Option) (T, error) {
	return update(ctx, c, c.rpc.Update, object, options)
}

// UpdateStatus replaces the status of an object, and nothing else of it.
func UpdateStatus[T api.Object](ctx context.Context, c *Client, object T, options ...Option) (T, error) {
	return update(ctx, c, c.rpc.UpdateStatus, object, options)
}

type updateCall func(context.Context, *kubepb.UpdateRequest, ...grpc.CallOption) (*kubepb.WriteResponse, error)

func update[T api.Object](ctx context.Context, c *Client, call updateCall, object T, options []Option) (T, error) {
	k, err := kindOf[T]()
	if err != nil {
		var none T
		return none, err
	}
	answer, err := c.update(ctx, call, k, object, options)
	return written[T](k, answer, err)
}

func (c *Client) update(ctx context.Context, call updateCall, k *api.Kind, object api.Object, options []Option) (*kubepb.WriteResponse, error) {
	m, err := encode(k, object)
	if err != nil {
		return nil, err
	}
	o := combine(options)
	return answer(call(ctx, &kubepb.UpdateRequest{Object: m, DryRun: o.DryRun, Manager: c.manager, Preconditions: o.preconditions()}))
}

// Patch changes parts of an object.
func Patch[T api.Object](
	ctx context.Context, c *Client, namespace, name string, how kubepb.PatchRequest_Type, patch []byte, options ...Option,
) (T, error) {
	return patchPart[T](ctx, c, &kubepb.PatchRequest{Object: &kubepb.Ref{Namespace: namespace, Name: name}, Type: how, Patch: patch}, options)
}

// PatchStatus changes parts of the status of an object.
func PatchStatus[T api.Object](
	ctx context.Context, c *Client, namespace, name string, how kubepb.PatchRequest_Type, patch []byte, options ...Option,
) (T, error) {
	return patchPart[T](ctx, c, &kubepb.PatchRequest{
		Object: &kubepb.Ref{Namespace: namespace, Name: name}, Type: how, Patch: patch, Status: true,
	}, options)
}

func patchPart[T api.Object](ctx context.Context, c *Client, r *kubepb.PatchRequest, options []Option) (T, error) {
	k, err := kindOf[T]()
	if err != nil {
		var none T
		return none, err
	}
	answer, err := c.patch(ctx, k, r, options)
	return written[T](k, answer, err)
}

// patch makes the request of a kind.
func (c *Client) patch(ctx context.Context, k *api.Kind, r *kubepb.PatchRequest, options []Option) (*kubepb.WriteResponse, error) {
	o := combine(options)
	r.Object.Kind, r.DryRun, r.Manager, r.Preconditions = k.Name, o.DryRun, c.manager, o.preconditions()
	return answer(c.rpc.Patch(ctx, r))
}

// Delete deletes an object, or begins to: pods end gracefully, and whoever put a
// finalizer has his say first.
func Delete[T api.Object](ctx context.Context, c *Client, namespace, name string, options ...Option) error {
	k, err := kindOf[T]()
	if err == nil {
		_, err = c.delete(ctx, k, namespace, name, options)
	}
	return err
}

func (c *Client) delete(ctx context.Context, k *api.Kind, namespace, name string, options []Option) (*kubepb.WriteResponse, error) {
	o := combine(options)
	r := &kubepb.DeleteRequest{
		Object: refOf(k, namespace, name), Propagation: o.Propagation, DryRun: o.DryRun, Preconditions: o.preconditions(),
	}
	if o.Grace != nil {
		r.GraceSet, r.GraceSeconds = true, *o.Grace
	}
	return answer(c.rpc.Delete(ctx, r))
}

// Bind gives a pod its node.
func (c *Client) Bind(ctx context.Context, r *kubepb.BindRequest) (*kubepb.WriteResponse, error) {
	return answer(c.rpc.Bind(ctx, r))
}

// Scale sets the number of copies.
func (c *Client) Scale(ctx context.Context, r *kubepb.ScaleRequest) (*kubepb.ScaleResponse, error) {
	return answer(c.rpc.Scale(ctx, r))
}

// Evict deletes a pod, unless a disruption budget forbids it now: ErrFull.
func (c *Client) Evict(ctx context.Context, r *kubepb.EvictRequest) (*kubepb.WriteResponse, error) {
	return answer(c.rpc.Evict(ctx, r))
}

// Explain says why a pod is where it is, or nowhere.
func (c *Client) Explain(ctx context.Context, namespace, name string) (*kubepb.ExplainResponse, error) {
	return answer(c.rpc.Explain(ctx, &kubepb.ExplainRequest{Pod: refOf(api.Pod, namespace, name)}))
}

// Usage is what nodes and pods use, as kubelets measured it last.
func (c *Client) Usage(ctx context.Context, r *kubepb.UsageRequest) (*kubepb.UsageResponse, error) {
	return answer(c.rpc.Usage(ctx, r))
}

func answer[R any](r *R, err error) (*R, error) {
	if err != nil {
		return nil, fromWire(err)
	}
	return r, nil
}

// Recovery tells how far the cluster is after a restore, and with pods of which ones
// store and nodes tell differently.
func (c *Client) Recovery(ctx context.Context, pods bool) (*kubepb.RecoveryResponse, error) {
	return answer(c.rpc.Recovery(ctx, &kubepb.RecoveryRequest{Pods: pods}))
}

// Recover decides about it.
func (c *Client) Recover(ctx context.Context, r *kubepb.RecoverRequest) (*kubepb.RecoverResponse, error) {
	return answer(c.rpc.Recover(ctx, r))
}
