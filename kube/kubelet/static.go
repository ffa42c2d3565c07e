package kubelet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/objects"
)

// Static pods are those of manifests in a folder of the node. They run with or without
// a control plane; where there is one it has a mirror of each, which says how it is and
// whose requests the ledger counts. The mirror is the node's alone: deleted by others
// it is made again.

// Annotations of static pods, as Kubernetes has them, and the file of each.
const (
	configSource = "kubernetes.io/config.source"
	configHash   = "kubernetes.io/config.hash"
	configFile   = "holdfast.dev/config.file"
	fromFile     = "file"
)

func isStatic(pod *corev1.Pod) bool { return pod.Annotations[configSource] == fromFile }

// static is what a worker of a static pod knows besides. Guarded by the lock of pods.
type static struct {
	mirror *corev1.Pod // As the control plane has it. Nil: it has none.
}

// manifests are what a folder says.
type manifests struct {
	pods map[types.UID]*corev1.Pod
	bad  map[string]error // By file. Pods that were read from it before go on.
}

// readStatic reads the folder. One file that is wrong does not keep others from being
// read.
func (k *Kubelet) readStatic() (*manifests, error) {
	m := &manifests{pods: map[types.UID]*corev1.Pod{}, bad: map[string]error{}}
	names, err := k.cfg.FS.List(k.cfg.StaticDir)
	if err != nil {
		return nil, fmt.Errorf("folder of static pods: %w", err)
	}
	slices.Sort(names)
	taken := map[string]string{}
	for _, name := range names {
		if !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)) || strings.HasPrefix(name, ".") {
			continue
		}
		pods, err := k.readManifest(name)
		own := map[string]bool{}
		for _, pod := range pods {
			at := pod.Namespace + "/" + pod.Name
			if own[at] {
				err = fmt.Errorf("%s: pod %s is in it twice", filepath.Join(k.cfg.StaticDir, name), pod.Name)
			}
			own[at] = true
			if other, ok := taken[at]; ok {
				err = fmt.Errorf("%s: pod %s is in %s already", filepath.Join(k.cfg.StaticDir, name), pod.Name, other)
			}
		}
		if err != nil {
			m.bad[name] = err
			continue
		}
		for _, pod := range pods {
			taken[pod.Namespace+"/"+pod.Name] = name
			m.pods[pod.UID] = pod
		}
	}
	return m, nil
}

func (k *Kubelet) readManifest(name string) ([]*corev1.Pod, error) {
	path := filepath.Join(k.cfg.StaticDir, name)
	text, err := vfs.ReadFile(k.cfg.FS, path)
	if err != nil {
		return nil, err
	}
	all, err := api.ReadManifests(strings.NewReader(string(text)), path)
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for i := range all {
		pod, ok := all[i].Object.(*corev1.Pod)
		if !ok {
			return nil, fmt.Errorf("%s:%d: kind: it is a %s; static are pods only", path, all[i].Line, api.KindOf(all[i].Object).Name)
		}
		if len(api.Named(pod)) > 0 || pod.Spec.ServiceAccountName != "" {
			return nil, fmt.Errorf("%s:%d: spec: a static pod names no secrets, config maps or service account: it runs without a control plane", path, all[i].Line)
		}
		made := k.staticPod(pod, name, all[i].JSON)
		if most := api.NameMax(api.Pod); len(made.Name) > most {
			return nil, fmt.Errorf("%s:%d: metadata.name: with that of the node it has %d bytes; %d are the most", path, all[i].Line, len(made.Name), most)
		}
		pods = append(pods, made)
	}
	return pods, nil
}

// staticPod is a pod of a manifest on this node. Its uid follows from all that it is
// of: another text makes another pod.
func (k *Kubelet) staticPod(from *corev1.Pod, file string, text []byte) *corev1.Pod {
	pod := from.DeepCopy()
	if pod.Namespace == "" {
		pod.Namespace = corev1.NamespaceDefault
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(k.cfg.Node), []byte(file), []byte(pod.Namespace), []byte(pod.Name), text} {
		fmt.Fprintf(h, "%d ", len(part))
		h.Write(part)
	}
	uid := hex.EncodeToString(h.Sum(nil)[:16])
	pod.Name += "-" + k.cfg.Node
	pod.UID = types.UID(uid)
	pod.CreationTimestamp, pod.Generation = stamp(k.clock.Wall()), 1
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[configSource], pod.Annotations[configHash], pod.Annotations[configFile] = fromFile, uid, file
	pod.OwnerReferences, pod.Finalizers = nil, nil
	pod.Spec.NodeName = k.cfg.Node
	// No taint drives it out: nobody else could run it.
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	pod.Status = corev1.PodStatus{}
	api.Default(pod)
	return pod
}

// keepStatic has pods run as the folder says, and removes mirrors of what it does not.
func (k *Kubelet) keepStatic(ctx context.Context) error {
	told := map[string]string{} // What was said of bad files.
	for {
		if k.cfg.StaticDir != "" {
			m, err := k.readStatic()
			if err != nil {
				m = &manifests{bad: map[string]error{"": err}}
			}
			k.tellBad(m.bad, told)
			if err == nil {
				k.pods.setStatic(m)
			}
		} else {
			k.pods.setStatic(&manifests{})
		}
		k.removeStrays(ctx)
		var look <-chan time.Time
		if k.cfg.StaticDir != "" || k.pods.hasStrays() {
			look = k.clock.After(staticLook)
		}
		select {
		case <-look:
		case <-k.pods.statics:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tellBad says once what is wrong.
func (k *Kubelet) tellBad(bad map[string]error, told map[string]string) {
	for _, file := range slices.Sorted(maps.Keys(bad)) {
		text := bad[file].Error()
		if told[file] == text {
			continue
		}
		told[file] = text
		k.log.Error("a manifest of static pods is wrong: what was read from it before goes on", "error", text)
		k.noteNode(note{corev1.EventTypeWarning, "FailedStaticPod", text})
	}
	for file := range told {
		if bad[file] == nil {
			delete(told, file)
		}
	}
}

// setStatic makes the workers of static pods those that manifests say.
func (p *pods) setStatic(m *manifests) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.adopted {
		return // The runtime does not know yet what ran before.
	}
	names := map[string]bool{}
	for _, w := range p.mu.workers {
		if w.static == nil {
			continue
		}
		names[w.pod.Namespace+"/"+w.pod.Name] = true
		if m.pods[w.pod.UID] == nil && m.bad[w.pod.Annotations[configFile]] == nil && !w.gone {
			w.gone = true
			p.pokeLocked(w)
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(m.pods)) {
		pod := m.pods[uid]
		if names[pod.Namespace+"/"+pod.Name] { // It is there, or one before it still ends.
			continue
		}
		w := newWorker(pod)
		w.static, w.judged = &static{}, true
		w.reject = p.admitLocked(pod)
		if p.mu.begun {
			w.static.mirror, _ = p.informer.Get(pod.Namespace, pod.Name)
		}
		p.mu.workers[uid] = w
		p.pokeLocked(w)
		p.tellMoved()
	}
}

// mirroredLocked hears of a mirror, or that there is none any more.
func (p *pods) mirroredLocked(pod *corev1.Pod, is bool) {
	for _, w := range p.mu.workers {
		if w.static == nil || w.pod.Namespace != pod.Namespace || w.pod.Name != pod.Name {
			continue
		}
		switch {
		case is:
			w.static.mirror = pod
		case w.static.mirror != nil && w.static.mirror.UID == pod.UID:
			w.static.mirror = nil
		}
		p.pokeLocked(w)
		return
	}
	delete(p.mu.strays, pod.UID)
	if is {
		p.mu.strays[pod.UID] = pod
	}
	rouse(p.statics)
}

func (p *pods) hasStrays() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.strays) > 0
}

// removeStrays deletes mirrors of pods that are not here.
func (k *Kubelet) removeStrays(ctx context.Context) {
	k.pods.mu.Lock()
	strays := slices.Collect(maps.Values(k.pods.mu.strays))
	k.pods.mu.Unlock()
	for _, pod := range strays {
		if err := k.removeMirror(ctx, pod); err != nil {
			k.log.Debug("a mirror of a pod that is not here stays, trying again", "pod", pod.Name, "error", err)
			continue
		}
		k.pods.mu.Lock()
		delete(k.pods.mu.strays, pod.UID)
		k.pods.mu.Unlock()
	}
}

func (k *Kubelet) removeMirror(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	var now int64
	return harmless(objects.Delete[*corev1.Pod](ctx, k.client, pod.Namespace, pod.Name, objects.Option{UID: string(pod.UID), Grace: &now}))
}

// reflect has the control plane know how a static pod is.
func (p *pods) reflect(ctx context.Context, w *worker, t *turn, made *plan) error {
	k := p.kubelet
	if made.Status != nil {
		pod := t.pod.DeepCopy()
		pod.Status = *made.Status
		t.pod = pod
		p.mu.Lock()
		w.pod = pod
		p.mu.Unlock()
	}
	if !t.listed {
		return nil // It is known only later whether there is a mirror.
	}
	m := t.mirror
	switch {
	case m == nil:
		return k.createMirror(ctx, t.pod)
	case m.DeletionTimestamp != nil || m.Annotations[corev1.MirrorPodAnnotationKey] != string(t.pod.UID):
		return k.removeMirror(ctx, m)
	case sameStatus(&m.Status, &t.pod.Status):
		return nil
	}
	o := m.DeepCopy()
	o.Status = *t.pod.Status.DeepCopy()
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	_, err := objects.UpdateStatus(ctx, k.client, o)
	return harmless(err)
}

func (k *Kubelet) createMirror(ctx context.Context, pod *corev1.Pod) error {
	m := pod.DeepCopy()
	m.Annotations[corev1.MirrorPodAnnotationKey] = string(pod.UID)
	m.UID, m.ResourceVersion, m.Status = "", "", corev1.PodStatus{}
	ctx, cancel := context.WithTimeout(ctx, callMax)
	defer cancel()
	_, err := objects.Create(ctx, k.client, m)
	if errors.Is(err, objects.ErrFull) {
		k.noteNode(note{corev1.EventTypeWarning, "FailedMirror", "static pod " + pod.Name + ": " + err.Error()})
	}
	if errors.Is(err, objects.ErrExists) {
		return nil // The watch tells of it.
	}
	return err
}
