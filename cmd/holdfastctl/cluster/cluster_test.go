package cluster

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	kubecontext "github.com/holdfast-db/holdfast/kube/context"
	"github.com/holdfast-db/holdfast/kube/kubetest"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/kube/tunnel"
	"github.com/holdfast-db/holdfast/kube/tunnel/tunneltest"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// stopped is a clock whose time of day a test sets: ages are the same each time.
type stopped struct {
	clock.Clock
	wall *atomic.Int64 // Unix seconds.
}

func (c stopped) Wall() time.Time { return time.Unix(c.wall.Load(), 0).UTC() }

// terminal is a person at a terminal, in a folder of his own, before a cluster.
type terminal struct {
	t       *testing.T
	cluster *kubetest.Cluster
	admin   *objects.Client
	clock   stopped
	user    auth.Identity
	environ map[string]string
	input   string
	nodes   map[string]*tunneltest.Node // Whose kubelets have a tunnel.
}

func newTerminal(t *testing.T) *terminal {
	t.Chdir(t.TempDir())
	tt := &terminal{t: t, clock: stopped{clock.Real(), &atomic.Int64{}}, user: auth.Admin("ann"), environ: map[string]string{"HOLDFAST_CONFIG": "config"}}
	tt.clock.wall.Store(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	tt.cluster = kubetest.Start(t, func(c *state.Config) {
		c.Clock = tt.clock
		c.Random = rand.NewChaCha8([32]byte{1})
		c.Explainer = decided{tt.clock}
	})
	tt.admin = tt.cluster.Client(tt.user)
	c := &kubecontext.Config{Current: "test"}
	c.Set(kubecontext.Context{Name: "test", Server: []string{"plane:6443"}, CA: "ca.pem", Cert: "ann.pem", Key: "ann-key.pem"})
	if err := c.Save(vfs.OS(), "config", func(string) string { return "" }); err != nil {
		t.Fatal(err)
	}
	return tt
}

// decided is a scheduler that remembers two attempts for one pod.
type decided struct{ clock stopped }

func (d decided) Explain(_ context.Context, pod *kubepb.Ref) (*kubepb.ExplainResponse, error) {
	if pod.Name != "web-2-b" {
		return &kubepb.ExplainResponse{}, nil
	}
	at := func(ago time.Duration) int64 { return d.clock.Wall().Add(-ago).UnixNano() }
	return &kubepb.ExplainResponse{Decisions: []*kubepb.Decision{
		{Time: at(time.Minute), Nodes: 3, Reasons: []*kubepb.Reason{{Plugin: "Fit", Text: "too little cpu", Nodes: 2}, {Plugin: "Taints", Text: "taint key", Nodes: 1}}},
		{Time: at(2 * time.Minute), Node: "n1", Nodes: 3, Note: "the bind was refused: no room", Scores: []*kubepb.Score{{Node: "n1", Total: 90, Plugins: map[string]int64{"Spread": 50, "Balance": 40}}}},
	}}, nil
}

func (tt *terminal) config(out, err *bytes.Buffer) Config {
	return Config{
		Program: "holdfastctl", In: strings.NewReader(tt.input), Out: out, Err: err, FS: vfs.OS(), Clock: tt.clock,
		Getenv: func(k string) string { return tt.environ[k] },
		Dial: func(*kubecontext.Context) (grpc.ClientConnInterface, error) {
			return tt.cluster.Service.Dial(tt.user), nil
		},
	}
}

var unsteady = []struct {
	is *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`(resourceVersion"?: )"\d+"`), `$1"R"`},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`resource version \d+`), "resource version R"},
	{regexp.MustCompile(`the change is to \d+`), "the change is to R"},
	{regexp.MustCompile(`\b10\.(?:1[2-5]\d|244)\.\d+\.0/24`), "SUBNET"},
	{regexp.MustCompile(`\S*holdfastctl-edit-\d+`), "FOLDER"},
}

// typed runs command lines and tells what they print.
func (tt *terminal) typed(lines string) string {
	var transcript strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(lines, "\n"), "\n") {
		var out, err bytes.Buffer
		ctx, cancel := context.WithTimeout(tt.t.Context(), time.Minute)
		code := Run(ctx, tt.config(&out, &err), words(line))
		cancel()
		transcript.WriteString(out.String())
		if out.Len() > 0 && !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
			transcript.WriteString("\n")
		}
		for _, l := range strings.Split(strings.TrimSuffix(err.String(), "\n"), "\n") {
			if l != "" {
				transcript.WriteString("! " + l + "\n")
			}
		}
		if code != 0 {
			fmt.Fprintf(&transcript, "exit %d\n", code)
		}
	}
	text := transcript.String()
	for _, u := range unsteady {
		text = u.is.ReplaceAllString(text, u.as)
	}
	return text
}

// words are those of a line, 'quoted' ones as they are.
func words(line string) []string {
	var all []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}

// make stores objects with their status, as the parts of a cluster would.
func (tt *terminal) make(manifests string) error {
	found, err := api.ReadManifests(strings.NewReader(manifests), "fixture")
	if err != nil {
		return err
	}
	for _, m := range found {
		k := api.KindOf(m.Object)
		if err := m.Place("default"); err != nil && m.Object.GetNamespace() == "" {
			return err
		}
		owners := m.Object.GetOwnerReferences()
		for i := range owners {
			of, err := api.ByName(owners[i].Kind)
			if err != nil {
				return err
			}
			o, err := tt.admin.Get(tt.t.Context(), of, m.Object.GetNamespace(), owners[i].Name)
			if err != nil {
				return err
			}
			owners[i] = api.ControlledBy(o)
		}
		m.Object.SetOwnerReferences(owners)
		if e, ok := m.Object.(*corev1.Event); ok {
			of, err := api.ByName(e.InvolvedObject.Kind)
			if err != nil {
				return err
			}
			o, err := tt.admin.Get(tt.t.Context(), of, e.InvolvedObject.Namespace, e.InvolvedObject.Name)
			if err != nil {
				return err
			}
			e.InvolvedObject.UID = o.GetUID()
		}
		status := m.Object.DeepCopyObject().(api.Object)
		if _, _, err := tt.admin.Create(tt.t.Context(), m.Object); err != nil {
			return err
		}
		if k.HasStatus {
			text, err := api.EncodeJSON(status)
			if err != nil {
				return err
			}
			if _, err := tt.admin.RPC().Patch(tt.t.Context(), &kubepb.PatchRequest{
				Object: &kubepb.Ref{Kind: k.Name, Namespace: status.GetNamespace(), Name: status.GetName()},
				Type:   kubepb.PatchRequest_MERGE, Patch: text, Status: true,
			}); err != nil {
				return fmt.Errorf("status of %s: %w", status.GetName(), err)
			}
		}
	}
	return nil
}

func (tt *terminal) run(c golden.Command) string {
	tt.t.Helper()
	switch c.Name {
	case "type":
		return tt.typed(c.Input)
	case "objects":
		if err := tt.make(c.Input); err != nil {
			return "error: " + err.Error()
		}
		return ""
	case "bind":
		return tt.bind(c.Arg("pod"), c.Arg("node"))
	case "sample":
		_, err := tt.cluster.Client(auth.Node(c.Arg("node"))).RPC().Sample(tt.t.Context(), &kubepb.SampleRequest{
			Node: c.Arg("node"), Use: &kubepb.Use{CpuMillis: 1500, MemoryBytes: 3 << 30},
			Pods: []*kubepb.PodUse{{Namespace: "default", Name: c.Arg("pod"), Uid: tt.uid(c.Arg("pod")), Containers: map[string]*kubepb.Use{"c": {CpuMillis: 50, MemoryBytes: 64 << 20}}}},
		})
		if err != nil {
			return "error: " + err.Error()
		}
		return ""
	case "kubelet":
		tt.kubelet(c.Arg("node"))
		return ""
	case "wrote":
		tt.nodes[c.Arg("node")].Write(tt.uid(c.Arg("pod")), c.Arg("container"), strings.Split(strings.TrimSuffix(c.Input, "\n"), "\n")...)
		return ""
	case "ended":
		tt.nodes[c.Arg("node")].End(tt.uid(c.Arg("pod")), c.Arg("container"))
		return ""
	case "file":
		name := c.Arg("name")
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			tt.t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(c.Input), 0o700); err != nil {
			tt.t.Fatal(err)
		}
		return ""
	case "input":
		tt.input = c.Input
		return ""
	case "env":
		for _, a := range c.Args {
			tt.environ[a.Key] = a.Value
		}
		return ""
	case "wait":
		d, err := time.ParseDuration(c.Arg("for"))
		if err != nil {
			tt.t.Fatal(err)
		}
		tt.clock.wall.Add(int64(d.Seconds()))
		return ""
	case "user":
		tt.user = auth.Identity{Name: c.Arg("name"), Groups: []string{c.Arg("group")}}
		return ""
	}
	tt.t.Fatalf("line %d: there is no command %s", c.Line, c.Name)
	return ""
}

// kubelet gives a node a tunnel, which has come to stand when it returns.
func (tt *terminal) kubelet(name string) {
	tt.t.Helper()
	if tt.nodes == nil {
		tt.nodes = map[string]*tunneltest.Node{}
	}
	tt.nodes[name] = tunneltest.New()
	tt.reach(name)
}

// reach begins a kubelet of a node, whose containers are there already. It ends with
// the test if it is not stopped before.
func (tt *terminal) reach(name string) (stop func()) {
	tt.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- tunnel.Serve(ctx, tunnel.Config{
			Name: name, Instance: "1", Node: tt.nodes[name], Logger: hclog.NewNullLogger(), Spread: func() float64 { return 0 },
			Servers: []tunnel.Server{{Name: "plane", Conn: tt.cluster.Service.Dial(auth.Node(name))}},
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			tt.t.Errorf("kubelet of %s: %v", name, err)
		}
	})
	tt.t.Cleanup(stop)
	for {
		if _, err := tunnel.Images(tt.t.Context(), tt.admin.RPC(), name); err == nil {
			return stop
		} else if status.Code(err) != codes.FailedPrecondition {
			tt.t.Fatal(err)
		}
	}
}

func (tt *terminal) bind(pod, node string) string {
	_, err := tt.admin.Bind(tt.t.Context(), &kubepb.BindRequest{Pod: &kubepb.Ref{Namespace: "default", Name: pod}, Node: node})
	if err != nil {
		return "error: " + err.Error()
	}
	return ""
}

func (tt *terminal) remove(pod string, grace int64) error {
	_, err := tt.admin.Delete(tt.t.Context(), api.Pod, "default", pod, objects.Option{Grace: &grace})
	return err
}

func (tt *terminal) uid(pod string) string {
	o, err := tt.admin.Get(tt.t.Context(), api.Pod, "default", pod)
	if err != nil {
		tt.t.Fatal(err)
	}
	return string(o.GetUID())
}

func TestWhatIsTypedPrintsWhatTheTranscriptSays(t *testing.T) {
	folder, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files in %s, %v", len(files), folder, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			golden.Script(t, file, newTerminal(t).run)
		})
	}
}
