package state

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Create implements kubepb.ClusterStateServer.
func (s *Service) Create(ctx context.Context, r *kubepb.CreateRequest) (*kubepb.WriteResponse, error) {
	answer, err := s.create(ctx, r)
	return answer, toWire(err)
}

func (s *Service) create(ctx context.Context, r *kubepb.CreateRequest) (*kubepb.WriteResponse, error) {
	k, asked, version, err := received(r.GetObject())
	if err != nil {
		return nil, err
	}
	if version != 0 {
		return nil, invalid("resource version: a new object has none")
	}
	if p := r.Preconditions; p.GetUid() != "" || p.GetResourceVersion() != 0 {
		return nil, invalid("preconditions: a new object has neither uid nor resource version")
	}
	if asked.GetName() != "" {
		err = checkPlace(k, asked.GetNamespace(), asked.GetName())
	} else {
		err = checkPlace(k, asked.GetNamespace(), asked.GetGenerateName())
	}
	if err != nil {
		return nil, err
	}
	in := &incoming{message: r.Object, object: asked}
	revision, a, err := s.write(ctx, r.Preconditions, r.DryRun, func(a *attempt) error {
		made, err := in.take()
		if err != nil {
			return err
		}
		return a.create(ctx, k, made)
	})
	if err != nil {
		return nil, err
	}
	return respond(k, in.object, revision, r.Object.Encoding, a)
}

// incoming is an object that was received. A try writes to it: the next one has it
// decoded anew.
type incoming struct {
	message *kubepb.Object
	object  api.Object
	taken   bool
}

func (in *incoming) take() (_ api.Object, err error) {
	if in.taken {
		_, in.object, _, err = received(in.message)
	}
	in.taken = true
	return in.object, err
}

// create decides a creation.
func (a *attempt) create(ctx context.Context, k *api.Kind, o api.Object) error {
	if o.GetName() == "" {
		name, err := a.generate(k, o.GetNamespace(), o.GetGenerateName())
		if err != nil {
			return err
		}
		o.SetName(name)
	}
	if err := a.begin(o); err != nil {
		return err
	}
	if k.HasStatus && k != api.Node {
		sharePart(o, k.New(), "Status")
	}
	api.Default(o)
	err := a.authorize(&auth.Request{Verb: auth.Create, Kind: k, Namespace: o.GetNamespace(), Name: o.GetName(), New: o})
	if err != nil {
		return err
	}
	lease, err := a.admit(ctx, o)
	if err != nil {
		return err
	}
	if err := allInvalid(api.Validate(o)); err != nil {
		return err
	}
	a.warnings = api.Warnings(o)
	if kv := a.read(k.Key(o.GetNamespace(), o.GetName())); kv != nil {
		return fmt.Errorf("%s %s: %w", k.Name, full(o.GetNamespace(), o.GetName()), errExists)
	}
	if err := a.inNamespace(k, o.GetNamespace()); err != nil {
		return err
	}
	if p, ok := o.(*corev1.Pod); ok {
		if err := a.settle(nil, p); err != nil {
			return err
		}
	}
	return a.put(k, o, lease)
}

// inNamespace refuses what is created in a namespace that is not there, or ends.
func (a *attempt) inNamespace(k *api.Kind, namespace string) error {
	if !k.Namespaced {
		return nil
	}
	o, _, err := a.shared(api.Namespace, "", namespace)
	if err != nil {
		return err
	}
	if o == nil {
		return fmt.Errorf("namespace %s: %w", namespace, errNotFound)
	}
	if o.GetDeletionTimestamp() != nil {
		return fmt.Errorf("namespace %s is being deleted: that it takes something in %w", namespace, errGuard)
	}
	return nil
}

// authorize asks for the caller of this write. Denials are logged when they are final.
func (a *attempt) authorize(r *auth.Request) error {
	r.Identity = a.identity
	return auth.Authorize(r, facts{a.service.cache})
}

// respond is the answer to a write. Revision 0: nothing was written.
func respond(k *api.Kind, o api.Object, revision int64, encoding kubepb.Encoding, a *attempt) (*kubepb.WriteResponse, error) {
	stored, err := a.encoded(k, o)
	if err != nil {
		return nil, err
	}
	if revision == 0 {
		if revision, err = api.ParseVersion(o.GetResourceVersion()); err != nil {
			return nil, err
		}
	}
	m, err := envelopeOf(k, stored, o.GetNamespace(), o.GetName(), revision, encoding)
	if err != nil {
		return nil, err
	}
	return &kubepb.WriteResponse{Object: m, Warnings: a.warnings}, nil
}

// Update implements kubepb.ClusterStateServer.
func (s *Service) Update(ctx context.Context, r *kubepb.UpdateRequest) (*kubepb.WriteResponse, error) {
	answer, err := s.update(ctx, r, auth.Update)
	return answer, toWire(err)
}

// UpdateStatus implements kubepb.ClusterStateServer.
func (s *Service) UpdateStatus(ctx context.Context, r *kubepb.UpdateRequest) (*kubepb.WriteResponse, error) {
	answer, err := s.update(ctx, r, auth.Status)
	return answer, toWire(err)
}

func (s *Service) update(ctx context.Context, r *kubepb.UpdateRequest, verb auth.Verb) (*kubepb.WriteResponse, error) {
	k, asked, version, err := received(r.GetObject())
	if err != nil {
		return nil, err
	}
	if err := checkPlace(k, asked.GetNamespace(), asked.GetName()); err != nil {
		return nil, err
	}
	c := &changing{kind: k, namespace: asked.GetNamespace(), name: asked.GetName(), verb: verb, version: version, preconditions: r.Preconditions}
	if uid := string(asked.GetUID()); uid != "" {
		c.uid = uid
	}
	in := &incoming{message: r.Object, object: asked}
	c.change = func(api.Object) (api.Object, error) { return in.take() }
	return s.change(ctx, c, r.DryRun, r.Object.Encoding)
}

// changing is a change of an object that exists.
type changing struct {
	kind            *api.Kind
	namespace, name string
	verb            auth.Verb // Update or Status.
	version         int64     // That the object must have. 0: any.
	uid             string
	preconditions   *kubepb.Preconditions
	change          func(old api.Object) (api.Object, error) // Old is shared.

	made api.Object
}

func (s *Service) change(ctx context.Context, c *changing, dryRun bool, encoding kubepb.Encoding) (*kubepb.WriteResponse, error) {
	if c.verb == auth.Status && !c.kind.HasStatus {
		return nil, invalid("a %s has no status", c.kind.Name)
	}
	revision, a, err := s.write(ctx, c.preconditions, dryRun, func(a *attempt) error { return a.change(ctx, c) })
	if err != nil {
		return nil, err
	}
	return respond(c.kind, c.made, revision, encoding, a)
}

// change decides a change.
func (a *attempt) change(ctx context.Context, c *changing) error {
	old, o, err := a.changed(c)
	if err != nil {
		return err
	}
	if gone(o) { // What else was to change goes with it: nothing is given to it any more.
		c.made = o
		return a.remove(c.kind, old)
	}
	lease, err := a.admitChange(ctx, old, o, c.verb)
	if err != nil {
		return err
	}
	if c.verb != auth.Status && !samePart(o, old, "Spec") {
		o.SetGeneration(old.GetGeneration() + 1)
	}
	if err := validate(o, old, c.verb); err != nil {
		return err
	}
	if c.verb == auth.Update {
		a.warnings = api.Warnings(o)
	}
	if before, ok := old.(*corev1.Pod); ok {
		if err := a.changePod(before, o.(*corev1.Pod)); err != nil {
			return err
		}
	}
	c.made = o
	key := c.kind.Key(c.namespace, c.name)
	b, err := api.Encode(o)
	if err != nil {
		return err
	}
	if kv := a.read(key); lease == 0 && kv != nil && bytes.Equal(b, kv.Value) {
		o.SetResourceVersion(api.FormatVersion(kv.ModRevision))
		return nil // It is so already: no revision says that it is so again.
	}
	return a.putEncoded(c.kind, o, b, lease)
}

// validate checks what an object shall become. A change of its status leaves the rest
// as it was.
func validate(o, old api.Object, verb auth.Verb) error {
	if err := allInvalid(api.Validate(o)); err != nil || verb == auth.Status {
		return err
	}
	o.SetResourceVersion(old.GetResourceVersion()) // It is one change after the other.
	defer o.SetResourceVersion("")
	return allInvalid(api.ValidateUpdate(o, old))
}

// changed reads the object, and returns it with what it shall become.
func (a *attempt) changed(c *changing) (old, o api.Object, err error) {
	k := c.kind
	old, revision, err := a.shared(k, c.namespace, c.name)
	if err != nil {
		return nil, nil, err
	}
	request := &auth.Request{Verb: c.verb, Kind: k, Namespace: c.namespace, Name: c.name}
	if old == nil {
		return nil, nil, a.absent(request)
	}
	what := k.Name + " " + full(c.namespace, c.name)
	o, err = c.change(old)
	if err != nil {
		return nil, nil, err
	}
	if c.verb == auth.Status {
		next := old.DeepCopyObject().(api.Object)
		sharePart(next, o, "Status")
		o = next
	} else {
		carry(o, old)
		if k.HasStatus {
			sharePart(o, old.DeepCopyObject().(api.Object), "Status")
		}
		api.Default(o)
		if err := keepFinalizers(o, old); err != nil {
			return nil, nil, err
		}
	}
	o.SetResourceVersion("")
	request.Old, request.New = old, o
	if err := a.authorize(request); err != nil {
		return nil, nil, err
	}
	if c.version != 0 && c.version != revision {
		return nil, nil, conflict(what, c.version, revision)
	}
	if c.uid != "" && c.uid != string(old.GetUID()) {
		return nil, nil, fmt.Errorf("%s has uid %s, not %s: %w", what, old.GetUID(), shorten(c.uid), errConflict)
	}
	return old, o, hold(c.preconditions, k, old, revision)
}

// keepFinalizers refuses new finalizers on what ends already. Those in the spec of a
// namespace are the controllers' to take away, once it ends.
func keepFinalizers(o, old api.Object) error {
	if ns, ok := o.(*corev1.Namespace); ok && old.GetDeletionTimestamp() == nil {
		ns.Spec.Finalizers = old.(*corev1.Namespace).Spec.Finalizers
	}
	if old.GetDeletionTimestamp() == nil {
		return nil
	}
	for _, f := range o.GetFinalizers() {
		if !slices.Contains(old.GetFinalizers(), f) {
			return invalid("metadata.finalizers: %q cannot be added to what is being deleted", shorten(f))
		}
	}
	return nil
}

// absent is the error for an object that is not there: who may not see it learns
// nothing, but that a pod ended is what its node must learn.
func (a *attempt) absent(r *auth.Request) error {
	if _, node := a.identity.NodeName(); !node || r.Kind != api.Pod {
		if err := a.authorize(r); err != nil {
			return err
		}
	}
	return missing(r.Kind, r.Namespace, r.Name)
}

// changePod holds what is true of a pod for all its life.
func (a *attempt) changePod(old, p *corev1.Pod) error {
	if p.Spec.NodeName != old.Spec.NodeName {
		return invalid("spec.nodeName: %q cannot become %q; a bind gives a pod its node, once", old.Spec.NodeName, p.Spec.NodeName)
	}
	if ended(old) && p.Status.Phase != old.Status.Phase {
		return invalid("status.phase: a pod that is %s stays so", old.Status.Phase)
	}
	return a.settle(old, p)
}

// remove deletes an object as it is stored, and gives back what was kept for it.
func (a *attempt) remove(k *api.Kind, old api.Object) error {
	var err error
	switch old := old.(type) {
	case *corev1.Pod:
		err = a.settle(old, nil)
	case *corev1.Service:
		err = a.address(old, nil)
	case *corev1.Node:
		err = a.subnet(old, nil)
	}
	a.delete(k.Key(old.GetNamespace(), old.GetName()))
	return err
}

// Patch implements kubepb.ClusterStateServer.
func (s *Service) Patch(ctx context.Context, r *kubepb.PatchRequest) (*kubepb.WriteResponse, error) {
	answer, err := s.patch(ctx, r)
	return answer, toWire(err)
}

func (s *Service) patch(ctx context.Context, r *kubepb.PatchRequest) (*kubepb.WriteResponse, error) {
	k, err := checkRef(r.GetObject())
	if err != nil {
		return nil, err
	}
	encoding, err := checkEncoding(r.Encoding)
	if err != nil {
		return nil, err
	}
	if len(r.Patch) > objectBytesMax {
		return nil, invalid("patch: it has %d bytes; %d are the most", len(r.Patch), objectBytesMax)
	}
	c := &changing{kind: k, namespace: r.Object.Namespace, name: r.Object.Name, verb: auth.Update, preconditions: r.Preconditions}
	if r.Status {
		c.verb = auth.Status
	}
	c.change = func(old api.Object) (api.Object, error) { return patched(k, old, r) }
	return s.change(ctx, c, r.DryRun, encoding)
}

func patched(k *api.Kind, old api.Object, r *kubepb.PatchRequest) (api.Object, error) {
	current, err := api.EncodeJSON(old.DeepCopyObject().(api.Object))
	if err != nil {
		return nil, err
	}
	o, err := api.Patch(k, current, r.Patch, r.Type)
	if err != nil {
		return nil, invalid("patch: %v", err)
	}
	if o.GetName() != old.GetName() || o.GetNamespace() != old.GetNamespace() {
		return nil, invalid("patch: name and namespace cannot change")
	}
	if v := o.GetResourceVersion(); v != "" && v != old.GetResourceVersion() {
		want, err := api.ParseVersion(v)
		if err != nil {
			return nil, invalid("patch: %v", err)
		}
		is, _ := api.ParseVersion(old.GetResourceVersion()) // The server's own.
		return nil, conflict(k.Name+" "+full(old.GetNamespace(), old.GetName()), want, is)
	}
	if uid := o.GetUID(); uid != old.GetUID() {
		return nil, fmt.Errorf("%s %s has uid %s, not %s: %w", k.Name, full(old.GetNamespace(), old.GetName()), old.GetUID(), shorten(string(uid)), errConflict)
	}
	return o, nil
}
