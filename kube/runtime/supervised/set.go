//go:build linux

package supervised

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/stage"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

// Config of a Set. All but Prepare, Opened and Clean is required.
type Config struct {
	// Dir is the Set's own folder, with a file for each pod. It is kept from run to run.
	Dir string
	// Sealed: containers may be other users' than the supervisor's, so this binary is
	// started in a form that they cannot write to. It needs root.
	Sealed  bool
	Logger  hclog.Logger
	Clock   clock.Clock
	Changed runtime.Changed

	// Prepare completes what a supervisor is started with, and says which namespaces it
	// gets of its own.
	Prepare func(p *Pod, b *supervisor.Boot) (clone uintptr, err error)
	// Opened is called when a pod has its supervisor, to do the rest; what it changes
	// in p is kept. It may be called again for the same pod.
	Opened func(ctx context.Context, p *Pod, pid int) error
	// Sweep kills what is left of a pod whose supervisor is gone, and returns when
	// nothing is. Required.
	Sweep func(p *Pod, records []supervisor.Record) error
	// Clean removes what a pod has beside its folder, when nothing of it runs.
	Clean func(ctx context.Context, p *Pod) error
}

// Pod is what is on disk of a pod, in Dir/UID.json.
type Pod struct {
	Version int             `json:"version"`
	Spec    runtime.PodSpec `json:"spec"`
	IP      string          `json:"ip,omitempty"`
}

// Dir is the engine's folder of the pod.
func (p *Pod) Dir() string { return filepath.Join(p.Spec.Dir, "engine") }

// Set is the pods of an engine. Its methods are those of runtime.Engine.
type Set struct {
	cfg      Config
	patience time.Duration // closeMax.
	self     *self
	watchers *task.Group
	reapers  *task.Group

	mu struct {
		sync.Mutex
		pods map[string]*entry
	}
}

// entry is a pod in memory.
type entry struct {
	mu       sync.Mutex // Held by what opens, starts, sweeps and closes.
	watching bool       // Guarded by mu.

	pod *Pod // Guarded by the Set's lock, replaced and never changed. nil: not opened, or closed.
}

// NewSet finds the pods of earlier runs, and watches them.
func NewSet(cfg Config) (*Set, error) {
	if err := vfs.MakeFolder(vfs.OS(), cfg.Dir); err != nil {
		return nil, err
	}
	s := &Set{cfg: cfg, patience: closeMax, self: &self{}, watchers: task.New(context.Background()), reapers: task.New(context.Background())}
	s.mu.pods = map[string]*entry{}
	// What this process inherited open, a lock of whoever started it, is not for those
	// that outlive it. All that Go opens is marked already.
	if err := stage.CloseOnExec(); err != nil {
		return nil, err
	}
	if cfg.Sealed {
		var err error
		if s.self, err = sealedSelf(); err != nil {
			return nil, err
		}
	}
	if err := s.load(); err != nil {
		s.self.close()
		return nil, err
	}
	return s, nil
}

func (s *Set) load() error {
	names, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		name := filepath.Join(s.cfg.Dir, n.Name())
		uid, ok := strings.CutSuffix(n.Name(), ".json")
		if !ok {
			continue // A replacement that was not made: it goes with the pod.
		}
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Closed this moment, by a kubelet that is on its way out.
		}
		if err != nil {
			return err
		}
		p := &Pod{}
		if err := json.Unmarshal(text, p); err != nil {
			return fmt.Errorf("%s: %w: remove it if the pod is not wanted", name, err)
		}
		if p.Version > supervisor.Version {
			return fmt.Errorf("%s is of version %d, this program knows %d: use the newer one again", name, p.Version, supervisor.Version)
		}
		e := &entry{pod: p}
		s.mu.pods[uid] = e
		e.mu.Lock()
		s.watch(e, p)
		e.mu.Unlock()
	}
	return nil
}

// Shutdown ends what this process does. Pods go on.
func (s *Set) Shutdown() error {
	s.watchers.Stop()
	err := s.watchers.Wait()
	s.self.close()
	return err
}

// save writes the file of a pod.
func (s *Set) save(p *Pod) error {
	p.Version = supervisor.Version
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	name := s.file(p.Spec.UID)
	if err := createFile(name, text); err == nil || !errors.Is(err, errNotCreated) {
		return err
	}
	return vfs.ReplaceFile(vfs.OS(), name, text)
}

// errNotCreated: it is there already, or the file system cannot make files without a name.
var errNotCreated = errors.New("not created")

// createFile makes a file that is whole as soon as it has its name. One without
// a name leaves nothing when its writer dies, so that no pod is to be known from
// a name alone.
func createFile(name string, data []byte) error {
	fd, err := unix.Open(filepath.Dir(name), unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return errNotCreated
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return errNotCreated
	}
	return vfs.OS().SyncDir(filepath.Dir(name))
}

func (s *Set) file(uid string) string { return filepath.Join(s.cfg.Dir, uid+".json") }

// get is what is known of a pod, nil of one that is not open.
func (s *Set) get(e *entry) *Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.pod
}

// put saves what is known of a pod.
func (s *Set) put(e *entry, p *Pod) error {
	if err := s.save(p); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.pod = p
	return nil
}

// Open makes a pod, or completes one.
func (s *Set) Open(ctx context.Context, spec *runtime.PodSpec) (*runtime.Pod, error) {
	if spec.UID == "" || strings.ContainsAny(spec.UID, "/.\x00") || !filepath.IsAbs(spec.Dir) {
		return nil, fmt.Errorf("%w: UID %q in folder %q: a pod needs a UID without dots and slashes, and an absolute path", runtime.ErrInvalid, spec.UID, spec.Dir)
	}
	e := s.claim(spec.UID)
	defer e.mu.Unlock()
	p := &Pod{Spec: *spec}
	if old := s.get(e); old != nil {
		p.IP = old.IP
	}
	// The name first: what a crash leaves from here on is found by it.
	if err := s.put(e, p); err != nil {
		return nil, err
	}
	if err := s.ensure(ctx, e); err != nil {
		return nil, err
	}
	return s.look(ctx, s.get(e))
}

// claim returns the entry of a pod, locked.
func (s *Set) claim(uid string) *entry {
	for {
		s.mu.Lock()
		e := s.mu.pods[uid]
		if e == nil {
			e = &entry{}
			s.mu.pods[uid] = e
		}
		s.mu.Unlock()
		e.mu.Lock()
		s.mu.Lock()
		still := s.mu.pods[uid] == e
		s.mu.Unlock()
		if still {
			return e
		}
		e.mu.Unlock() // It was closed meanwhile.
	}
}

// ensure gives a pod its supervisor if it has none. The entry is locked.
func (s *Set) ensure(ctx context.Context, e *entry) error {
	p := *s.get(e)
	if err := os.MkdirAll(p.Dir(), 0o700); err != nil {
		return err
	}
	if err := s.revive(ctx, &p); err != nil {
		return err
	}
	s.watch(e, &p)
	a, err := client{p.Dir()}.call(ctx, &supervisor.Request{Call: supervisor.CallHello})
	if err != nil {
		return err
	}
	if s.cfg.Opened == nil {
		return nil
	}
	before := p.IP
	if err := s.cfg.Opened(ctx, &p, a.PID); err != nil {
		return err
	}
	if p.IP == before {
		return nil
	}
	return s.put(e, &p)
}

// revive starts a supervisor where there is none, after what the last one left was killed.
func (s *Set) revive(ctx context.Context, p *Pod) error {
	held, err := s.take(ctx, p)
	if held == nil || err != nil {
		return err
	}
	defer held.Close() // The supervisor has it too by then, or there is none.
	if err := s.sweep(p); err != nil {
		return err
	}
	b := &supervisor.Boot{UID: p.Spec.UID, Dir: p.Dir()}
	var clone uintptr
	if s.cfg.Prepare != nil {
		if clone, err = s.cfg.Prepare(p, b); err != nil {
			return err
		}
	}
	return s.spawn(ctx, b, clone, held)
}

// take takes the lock of a pod, unless it has a supervisor that answers. Somebody may
// hold it for a moment to look, or to start one.
func (s *Set) take(ctx context.Context, p *Pod) (*os.File, error) {
	for range spawnMax / lockPause {
		f, err := lock(p.Dir())
		if !errors.Is(err, errHeld) {
			return f, err
		}
		asked, cancel := context.WithTimeout(ctx, helloMax)
		_, err = client{p.Dir()}.call(asked, &supervisor.Request{Call: supervisor.CallHello})
		cancel()
		if err == nil {
			return nil, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		<-s.cfg.Clock.After(lockPause)
	}
	return nil, fmt.Errorf("pod %s: %w, which does not answer: close the pod", p.Spec.UID, errHeld)
}

// sweep kills what a dead supervisor left and ends its records.
func (s *Set) sweep(p *Pod) error {
	records, err := supervisor.ReadRecords(p.Dir())
	if err != nil {
		return err
	}
	if err := s.cfg.Sweep(p, records); err != nil {
		return fmt.Errorf("kill what is left of pod %s: %w", p.Spec.UID, err)
	}
	_, err = supervisor.MarkLost(p.Dir(), s.cfg.Clock.Wall())
	return err
}

// watch has a goroutine tell of changes of a pod, until its supervisor ends. The entry
// is locked.
func (s *Set) watch(e *entry, p *Pod) {
	if e.watching {
		return
	}
	uid, c := p.Spec.UID, client{p.Dir()}
	e.watching = s.watchers.Go("watch", func(ctx context.Context) error {
		for {
			err := c.watch(ctx, func() { s.cfg.Changed(uid) })
			if ctx.Err() != nil {
				return nil
			}
			if s.bury(e, err) {
				s.cfg.Changed(uid)
				return nil
			}
		}
	})
}

// bury cleans up after a supervisor whose connection broke. It returns false when it
// lives after all.
func (s *Set) bury(e *entry, cause error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := s.get(e)
	if p == nil {
		e.watching = false
		return true // Closed: that is why it ended.
	}
	// It loses its socket a moment before its lock.
	held, err := s.waitGone(context.Background(), p.Dir(), time.Second)
	if held {
		return false
	}
	e.watching = false
	s.cfg.Logger.Warn("supervisor of a pod is gone: what is left of its containers is killed", "pod", p.Spec.UID, "err", cause)
	if err == nil {
		err = s.sweep(p)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Logger.Error("what a supervisor left cannot be removed; the next look at the pod tries again", "pod", p.Spec.UID, "err", err)
	}
	return true
}

// lockPause is between two looks at a lock.
const lockPause = 2 * time.Millisecond

// waitGone waits until a pod has no supervisor, and tells whether it still has one.
func (s *Set) waitGone(ctx context.Context, dir string, most time.Duration) (held bool, err error) {
	for range most / lockPause {
		held, err = alive(dir)
		if !held || err != nil || ctx.Err() != nil {
			break
		}
		<-s.cfg.Clock.After(lockPause)
	}
	return held, err
}

// List tells all pods.
func (s *Set) List(ctx context.Context) ([]runtime.Pod, error) {
	s.mu.Lock()
	var all []*entry
	for _, e := range s.mu.pods {
		all = append(all, e)
	}
	s.mu.Unlock()
	var pods []runtime.Pod
	for _, e := range all {
		p, err := s.lookAt(ctx, e)
		if err != nil {
			return nil, err
		}
		if p != nil {
			pods = append(pods, *p)
		}
	}
	return pods, nil
}

// lookAt tells what a pod is, nil of one that was closed.
func (s *Set) lookAt(ctx context.Context, e *entry) (*runtime.Pod, error) {
	p := s.get(e)
	if p == nil {
		return nil, nil
	}
	held, err := alive(p.Dir())
	if errors.Is(err, fs.ErrNotExist) {
		return s.look(ctx, p) // Its making was cut short, or its removal.
	}
	if err != nil {
		return nil, err
	}
	if held {
		return s.look(ctx, p)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p = s.get(e); p == nil {
		return nil, nil
	}
	held, err = alive(p.Dir())
	if err == nil && !held {
		if err := s.sweep(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			// What does not end though it was killed, as by a file system that does not
			// answer, must not hide all other pods of the node: it runs, as is on record.
			s.cfg.Logger.Error("what a supervisor left cannot be removed; the next look at the pod tries again", "pod", p.Spec.UID, "err", err)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s.look(ctx, p)
}

// look tells what is on record of a pod.
func (s *Set) look(ctx context.Context, p *Pod) (*runtime.Pod, error) {
	records, err := client{p.Dir()}.records(ctx)
	if err != nil {
		return nil, err
	}
	pod := &runtime.Pod{UID: p.Spec.UID, Namespace: p.Spec.Namespace, Name: p.Spec.Name, IP: p.IP}
	for _, r := range records {
		if r.State == supervisor.StateStarting {
			continue // It has not begun, and its start is repeated.
		}
		c := runtime.Container{
			ID: r.ID, Name: r.Name, Attempt: r.Attempt, ImageID: r.ImageID, Phase: runtime.Running, Log: r.Log,
			Started: r.Started, Finished: r.Finished, ExitCode: r.ExitCode, Reason: r.Reason, Message: r.Message,
		}
		if r.State == supervisor.StateExited {
			c.Phase = runtime.Exited
		}
		pod.Containers = append(pod.Containers, c)
	}
	return pod, nil
}
