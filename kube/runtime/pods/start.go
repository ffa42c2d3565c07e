package pods

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/environ"
	"github.com/holdfast-db/holdfast/kube/image"
	"github.com/holdfast-db/holdfast/kube/kubelet"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// refusal is why a container cannot be started, in the words of Kubernetes.
type refusal struct {
	reason, message string
	command         bool // It is the container's own command.
	missing         bool // What the pod names is not there, and may come.
}

func refuse(reason string, err error) *refusal {
	return &refusal{reason: reason, message: err.Error(), missing: errors.Is(err, environ.ErrMissing)}
}

// Reasons why a container waits.
const (
	reasonPull         = "ErrImagePull"
	reasonNever        = "ErrImageNeverPull"
	reasonName         = "InvalidImageName"
	reasonConfig       = "CreateContainerConfigError"
	reasonCreate       = "CreateContainerError"
	reasonRun          = "RunContainerError"
	reasonStart        = "StartError"
	reasonUnknown      = "ContainerStatusUnknown"
	eventPulling       = "Pulling"
	eventPulled        = "Pulled"
	eventCreated       = "Created"
	eventMount         = "FailedMount"
	eventSandbox       = "FailedCreatePodSandBox"
	eventUnhealthy     = "Unhealthy"
	eventKilling       = "Killing"
	eventPostStartHook = "FailedPostStartHook"
	eventPreStopHook   = "FailedPreStopHook"
)

// begin starts a container, and what its pod needs before that.
func (r *Runtime) begin(ctx context.Context, p *pod, o *corev1.Pod, name string) {
	spec := specOf(o, name)
	if spec == nil {
		return // No plan asks for it.
	}
	log := r.log.With("pod", o.Namespace+"/"+o.Name, "container", name)
	id, refused := r.make(ctx, p, o, spec)
	if ctx.Err() != nil && id == "" {
		return // It is being stopped, or goes on with the next kubelet.
	}
	r.mu.Lock()
	c := p.container(name)
	if refused != nil {
		c.state = refused.state(o, spec, r.clock.Wall())
		if c.missing != refused.message {
			log.Info("a container is not started", "reason", refused.reason, "error", refused.message)
		}
		c.missing = ""
		if refused.missing {
			c.missing = refused.message
		}
	}
	r.mu.Unlock()
	if refused == nil {
		// One that could not begin has ended already: it is not said to run.
		if err := r.look(ctx); err != nil {
			r.lookSoon()
		}
	}
	r.cfg.Changed(o.UID)
	if refused == nil {
		r.started(ctx, p, o, spec, id)
	}
}

// startErrorCode is the exit code of a container whose command could not be started, as
// other runtimes have it.
const startErrorCode = 128

// state is how a container is said to be that was not started. One whose pod wants no
// second try has ended if its own command was the reason: whatever else was is tried again.
func (f *refusal) state(o *corev1.Pod, c *corev1.Container, now time.Time) kubelet.ContainerState {
	s := kubelet.ContainerState{Phase: kubelet.Refused, Reason: f.reason, Message: f.message, Missing: f.missing}
	if f.command && o.Spec.RestartPolicy == corev1.RestartPolicyNever && !api.Sidecar(c) {
		s = kubelet.ContainerState{Phase: kubelet.Exited, Reason: reasonStart, Message: f.message, ExitCode: startErrorCode, Started: now, Finished: now}
	}
	// Each refusal is one to count, so each has its own ID.
	s.ID = "refused://" + string(o.UID) + "/" + c.Name + "/" + strconv.FormatInt(now.UnixNano(), 36)
	return s
}

// make returns the ID of a container that runs.
func (r *Runtime) make(ctx context.Context, p *pod, o *corev1.Pod, spec *corev1.Container) (string, *refusal) {
	r.mu.Lock()
	missing := p.container(spec.Name).missing != ""
	r.mu.Unlock()
	if missing { // It is tried often: before registries are asked again.
		if _, refused := r.environment(ctx, p, o, spec); refused != nil {
			return "", refused
		}
	}
	if err := r.prepare(ctx, p, o); err != nil {
		return "", nil // The context has ended.
	}
	from, refused := r.image(ctx, o, spec)
	if refused != nil {
		return "", refused
	}
	id, refused, err := r.startIn(ctx, p, o, spec, from)
	if errors.Is(err, runtime.ErrNotFound) {
		// The engine knows the pod, but what its containers shared has ended, as with its
		// machine: it is made anew.
		r.mu.Lock()
		p.open = false
		r.mu.Unlock()
		id, refused, err = r.startIn(ctx, p, o, spec, from)
	}
	if err != nil {
		return "", startRefusal(err)
	}
	return id, refused
}

// startIn starts a container in its pod, which is opened if it is not. The error is the
// engine's. Neither an ID nor a reason: the context has ended.
func (r *Runtime) startIn(ctx context.Context, p *pod, o *corev1.Pod, spec *corev1.Container, from *runtime.Image) (string, *refusal, error) {
	if err := r.open(ctx, p, o); err != nil {
		return "", nil, nil
	}
	c, refused := r.containerSpec(ctx, p, o, spec, from)
	if refused != nil {
		return "", refused, nil
	}
	id, err := r.engine.Start(ctx, c)
	if err != nil {
		return "", nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	is := p.container(spec.Name)
	is.id, is.attempt, is.log, is.stopper, is.watch = id, c.Attempt, c.Log, nil, nil
	is.state = kubelet.ContainerState{ID: r.containerID(id), ImageID: from.ID, Image: spec.Image, Phase: kubelet.Running, Started: r.clock.Wall()}
	return id, nil, nil
}

func startRefusal(err error) *refusal {
	switch {
	case errors.Is(err, runtime.ErrNoCommand):
		return &refusal{reason: reasonRun, message: err.Error(), command: true}
	case errors.Is(err, runtime.ErrImage):
		return refuse(reasonPull, err)
	}
	return refuse(reasonCreate, err)
}

// insist does something until it succeeds or ctx ends. What keeps it from that is told
// once for each text.
func (r *Runtime) insist(ctx context.Context, p *pod, o *corev1.Pod, event string, most time.Duration, do func() error) error {
	told, delay := "", retryMin
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if text := err.Error(); text != told {
			told = text
			r.cfg.Event(o, corev1.EventTypeWarning, event, text)
			r.waiting(p, text)
		}
		if !r.pause(ctx, delay) {
			return ctx.Err()
		}
		delay = min(2*delay, most)
	}
}

// waiting says in the status of containers that are being made what keeps them.
func (r *Runtime) waiting(p *pod, message string) {
	r.mu.Lock()
	for _, c := range p.containers {
		if c.state.Phase == kubelet.Creating {
			c.state.Message = message
		}
	}
	r.mu.Unlock()
	r.cfg.Changed(p.uid)
}

func (r *Runtime) prepare(ctx context.Context, p *pod, o *corev1.Pod) error {
	err := r.insist(ctx, p, o, eventMount, volumesRetryMax, func() error { return r.cfg.Volumes.Prepare(ctx, o) })
	for _, note := range r.cfg.Volumes.Notes(o) {
		r.cfg.Event(o, corev1.EventTypeWarning, eventMount, note)
	}
	return err
}

// open makes what the containers of a pod share, unless it is there.
func (r *Runtime) open(ctx context.Context, p *pod, o *corev1.Pod) error {
	r.mu.Lock()
	open := p.open
	r.mu.Unlock()
	if open {
		return nil
	}
	return r.insist(ctx, p, o, eventSandbox, retryMax, func() error {
		made, err := r.engine.Open(ctx, r.podSpec(o))
		if err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		p.open, p.ip = true, r.podIP(made, o.Spec.HostNetwork)
		p.opens++
		r.publish(o, p.ip)
		return nil
	})
}

// podIP is the address of a pod, which may be on the network of its node.
func (r *Runtime) podIP(p *runtime.Pod, hostNetwork bool) string {
	switch {
	case p.IP != "":
		return p.IP
	case r.cfg.Loopback && !r.info.PodNetwork && !hostNetwork:
		return loopbackOf(p.UID)
	}
	return r.nodeIP()
}

// loopbackOf is the same for a UID always, and hardly ever that of another: one of
// 127.128.0.0/9, of which services have none.
func loopbackOf(uid string) string {
	h := fnv.New32a()
	h.Write([]byte(uid))
	n := h.Sum32()
	return netip.AddrFrom4([4]byte{127, 128 | byte(n>>16), byte(n >> 8), byte(n)%254 + 1}).String()
}

// publish makes ports of a pod the node's, where the pod has an address of its own.
func (r *Runtime) publish(o *corev1.Pod, ip string) {
	if a := r.ownAddress(ip); a.IsValid() && !o.Spec.HostNetwork {
		r.cfg.Wires.Publish(o, a)
	}
}

// ownAddress is that of a pod, unless it is the node's.
func (r *Runtime) ownAddress(ip string) netip.Addr {
	if a, err := netip.ParseAddr(ip); err == nil && ip != r.nodeIP() {
		return a
	}
	return netip.Addr{}
}

// nodeIP is the address of pods on the network of the node.
func (r *Runtime) nodeIP() string {
	for _, a := range r.node.Load().Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	return ""
}

// started is what follows the start of a container: its hook, then its probes.
func (r *Runtime) started(ctx context.Context, p *pod, o *corev1.Pod, spec *corev1.Container, id string) {
	r.cfg.Event(o, corev1.EventTypeNormal, eventCreated, "Created container: "+spec.Name)
	var err error
	if l := spec.Lifecycle; l != nil && l.PostStart != nil {
		err = r.hook(ctx, p, o, spec, id, l.PostStart)
	}
	r.mu.Lock()
	c := p.containers[spec.Name]
	if c == nil || c.id != id || c.state.Phase != kubelet.Running {
		r.mu.Unlock()
		return // It has ended already.
	}
	switch {
	case err == nil:
		c.watch = r.watchLocked(p, spec.Name, c, nil)
	case ctx.Err() == nil:
		r.stopContainerLocked(p, spec.Name, c, newDeadline(r.clock.Mono()+graceOf(o)))
	}
	r.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		r.cfg.Event(o, corev1.EventTypeWarning, eventPostStartHook, fmt.Sprintf("PostStartHook of container %s failed: %v", spec.Name, err))
	}
	r.cfg.Changed(o.UID)
	r.lookSoon()
}

// image finds the image of a container.
func (r *Runtime) image(ctx context.Context, o *corev1.Pod, spec *corev1.Container) (*runtime.Image, *refusal) {
	logins := r.logins(ctx, o)
	began := r.clock.Mono()
	found, err := r.cfg.Images.Resolve(ctx, spec.Image, spec.ImagePullPolicy, logins)
	if ctx.Err() != nil {
		return nil, &refusal{} // Nobody looks at it.
	}
	if err != nil {
		return nil, imageRefusal(err)
	}
	if took := r.clock.Mono() - began; took >= time.Second { // Then it was fetched.
		r.cfg.Event(o, corev1.EventTypeNormal, eventPulled, fmt.Sprintf("Successfully pulled image %q in %v", spec.Image, took.Round(time.Millisecond)))
	}
	return found, nil
}

func imageRefusal(err error) *refusal {
	switch {
	case errors.Is(err, image.ErrName):
		return refuse(reasonName, err)
	case errors.Is(err, image.ErrAbsent):
		return refuse(reasonNever, err)
	}
	return refuse(reasonPull, err)
}

// logins are those of the secrets that a pod names. One that is missing or wrong is
// told and left out: perhaps it is not needed.
func (r *Runtime) logins(ctx context.Context, o *corev1.Pod) image.Logins {
	var all image.Logins
	for _, s := range o.Spec.ImagePullSecrets {
		secret, err := environ.Secret(ctx, r.cfg.Objects, o.Namespace, s.Name, nil)
		if err == nil {
			var logins image.Logins
			content, ok := secret.Data[corev1.DockerConfigJsonKey]
			if !ok {
				content = secret.Data[corev1.DockerConfigKey]
			}
			logins, err = image.ParseLogins(content)
			all = append(all, logins...)
		}
		if err != nil && ctx.Err() == nil {
			r.cfg.Event(o, corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf("imagePullSecret %s: %v", s.Name, err))
		}
	}
	return all
}

// containerSpec is what the engine is asked for.
func (r *Runtime) containerSpec(ctx context.Context, p *pod, o *corev1.Pod, spec *corev1.Container, from *runtime.Image) (*runtime.ContainerSpec, *refusal) {
	if err := checkUser(o, spec, from); err != nil {
		return nil, refuse(reasonConfig, err)
	}
	env, refused := r.environment(ctx, p, o, spec)
	if refused != nil {
		return nil, refused
	}
	r.mu.Lock()
	attempt, ip := p.container(spec.Name).attempt+1, p.ip
	r.mu.Unlock()
	for _, skipped := range env.Skipped {
		r.cfg.Event(o, corev1.EventTypeWarning, "InvalidEnvironmentVariableNames", skipped)
	}
	vars := slices.Concat(r.told(o, from, ip), env.Vars)
	mounts, err := r.cfg.Volumes.Mounts(o, spec, env)
	if err != nil {
		return nil, refuse(reasonConfig, err)
	}
	if r.info.Isolated && spec.TerminationMessagePath != "" {
		message, err := r.cfg.Volumes.Message(o, spec, attempt)
		if err != nil {
			return nil, refuse(reasonCreate, err)
		}
		mounts = append(mounts, message)
	}
	return &runtime.ContainerSpec{
		UID: string(o.UID), Name: spec.Name, Attempt: attempt,
		Image: from, Command: env.Command, Args: env.Args, Env: vars, WorkingDir: spec.WorkingDir,
		Mounts:    mounts,
		Resources: resourcesOf(&spec.Resources), Security: securityOf(o, spec),
		Stdin: spec.Stdin, TTY: spec.TTY,
		Log:         r.logPath(o, spec.Name, attempt),
		OOMScoreAdj: oomScoreAdj(o, spec, r.node.Load().Status.Capacity.Memory().Value()),
	}, nil
}

// environment are the variables that a container asks for.
func (r *Runtime) environment(ctx context.Context, p *pod, o *corev1.Pod, spec *corev1.Container) (*environ.Environment, *refusal) {
	r.mu.Lock()
	facts := &environ.Facts{HostIPs: only(r.nodeIP()), PodIPs: only(p.ip), Allocatable: r.node.Load().Status.Allocatable}
	r.mu.Unlock()
	env, err := environ.Resolve(ctx, o, spec, facts, r.cfg.Objects)
	if err != nil {
		return nil, refuse(reasonConfig, err)
	}
	return env, nil
}

// told are variables that nobody has to ask for: where the pod listens, if it has no
// network of its own, and for the image that shows who it is, just that.
func (r *Runtime) told(o *corev1.Pod, from *runtime.Image, ip string) []string {
	var vars []string
	if from.Ref == image.Demo {
		vars = []string{"HOLDFAST_POD=" + o.Name, "HOLDFAST_NAMESPACE=" + o.Namespace, "HOLDFAST_NODE=" + r.node.Load().Name}
	}
	if !r.info.PodNetwork {
		vars = append(vars, "HOLDFAST_POD_IP="+ip)
	}
	return vars
}

func only(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

func (r *Runtime) logPath(o *corev1.Pod, name string, attempt int) string {
	return filepath.Join(r.dir(o.UID), "logs", name, strconv.Itoa(attempt)+".log")
}
