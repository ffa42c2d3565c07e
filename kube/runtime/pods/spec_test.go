package pods

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

func needs(requests, limits string) corev1.ResourceRequirements {
	list := func(text string) corev1.ResourceList {
		all := corev1.ResourceList{}
		for pair := range strings.FieldsSeq(text) {
			name, value, _ := strings.Cut(pair, "=")
			all[corev1.ResourceName(name)] = resource.MustParse(value)
		}
		return all
	}
	return corev1.ResourceRequirements{Requests: list(requests), Limits: list(limits)}
}

func specWith(all ...corev1.ResourceRequirements) *corev1.PodSpec {
	s := &corev1.PodSpec{}
	for _, r := range all {
		s.Containers = append(s.Containers, corev1.Container{Resources: r})
	}
	return s
}

func TestAPodIsLimitedWhereAllItsContainersAre(t *testing.T) {
	got := podResources(specWith(needs("cpu=250m", "cpu=500m memory=64Mi"), needs("cpu=1", "cpu=1 memory=64Mi")))
	want := runtime.Resources{RequestMilliCPU: 1250, LimitMilliCPU: 1500, LimitMemoryBytes: 128 << 20, LimitPIDs: podPIDs}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := podResources(specWith(needs("", "cpu=1e15"), needs("", "cpu=8E"), needs("", "cpu=9m"))); got.LimitMilliCPU != 2*processorsMax*1000+9 {
		t.Errorf("limits that nobody could count: %+v", got)
	}
	s := specWith(needs("", "cpu=1 memory=64Mi"), needs("", "memory=64Mi"))
	s.InitContainers = specWith(needs("", "cpu=1 memory=1Gi")).Containers
	if got := podResources(s); got.LimitMilliCPU != 0 || got.LimitMemoryBytes != 1<<30 {
		t.Errorf("one without a limit, and a large init container: %+v", got)
	}
}

func TestTheKernelEndsFirstWhoRequestsLeast(t *testing.T) {
	for _, c := range []struct {
		needs corev1.ResourceRequirements
		want  int
	}{
		{needs("", ""), 1000},
		{needs("cpu=1 memory=1Gi", "cpu=1 memory=1Gi"), -997},
		{needs("memory=512Mi", ""), 500},
		{needs("memory=4Gi", ""), 3},
		{needs("cpu=1", ""), 999},
	} {
		o := &corev1.Pod{Spec: *specWith(c.needs)}
		if got := oomScoreAdj(o, &o.Spec.Containers[0], 1<<30); got != c.want {
			t.Errorf("%v: %d, want %d", c.needs, got, c.want)
		}
	}
}

func pointer[T any](v T) *T { return &v }

func TestWhatAContainerMayDoIsWhatItSaysElseWhatItsPodSays(t *testing.T) {
	o := &corev1.Pod{}
	c := &corev1.Container{}
	if got := securityOf(o, c); !reflect.DeepEqual(got, runtime.Security{MayGainPrivileges: true}) {
		t.Errorf("of nothing: %+v", got)
	}
	o.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsUser: pointer[int64](1), RunAsGroup: pointer[int64](2), SupplementalGroups: []int64{3}, FSGroup: pointer[int64](4), RunAsNonRoot: pointer(true),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
	}
	want := runtime.Security{User: pointer[int64](1), Group: pointer[int64](2), Groups: []int64{3, 4}, NonRoot: true, MayGainPrivileges: true, UnfilteredSyscalls: true}
	if got := securityOf(o, c); !reflect.DeepEqual(got, want) {
		t.Errorf("of the pod: %+v", got)
	}
	c.SecurityContext = &corev1.SecurityContext{
		RunAsUser: pointer[int64](9), RunAsNonRoot: pointer(false), ReadOnlyRootFilesystem: pointer(true), AllowPrivilegeEscalation: pointer(false),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		Capabilities:   &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}, Drop: []corev1.Capability{"ALL"}},
	}
	want = runtime.Security{
		User: pointer[int64](9), Group: pointer[int64](2), Groups: []int64{3, 4}, ReadOnlyRoot: true, AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"ALL"},
	}
	if got := securityOf(o, c); !reflect.DeepEqual(got, want) {
		t.Errorf("of the container: %+v", got)
	}
	if o.Spec.SecurityContext.SupplementalGroups = o.Spec.SecurityContext.SupplementalGroups[:1]; len(o.Spec.SecurityContext.SupplementalGroups) != 1 {
		t.Error("the pod was changed")
	}
}

func TestRootIsRefusedWhereThePodSaysThatNobodyIs(t *testing.T) {
	for _, c := range []struct {
		image   string
		user    *int64
		refused bool
	}{
		{"", nil, true}, {"root", nil, true}, {"0:5", nil, true}, {"1000", nil, false}, {"1000:0", nil, false},
		{"nobody", nil, false}, // For the engine to look up.
		{"", pointer[int64](5), false}, {"1000", pointer[int64](0), true},
	} {
		o := &corev1.Pod{}
		o.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: pointer(true), RunAsUser: c.user}
		err := checkUser(o, &corev1.Container{}, &runtime.Image{User: c.image})
		if (err != nil) != c.refused {
			t.Errorf("image user %q, runAsUser %v: %v", c.image, c.user, err)
		}
	}
	if err := checkUser(&corev1.Pod{}, &corev1.Container{}, &runtime.Image{}); err != nil {
		t.Error(err)
	}
}

func TestTheHostNameIsOneThatTheKernelTakes(t *testing.T) {
	long := strings.Repeat("a", 62) + "-b"
	for _, c := range []struct{ name, says, want string }{
		{"web-0", "", "web-0"}, {"web-0", "db", "db"}, {"a.b", "", "a"}, {long, "", strings.Repeat("a", 62)},
	} {
		o := &corev1.Pod{}
		o.Name, o.Spec.Hostname = c.name, c.says
		if got := hostname(o); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

func TestTheTailOfALogIsItsTexts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "0.log")
	var text strings.Builder
	for range 100 {
		text.WriteString("2026-01-01T00:00:00Z stdout F " + strings.Repeat("x", 20) + "\n")
	}
	text.WriteString("2026-01-01T00:00:00Z stderr P panic: \n2026-01-01T00:00:00Z stderr F no more\n")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	got := tailOf(file)
	if !strings.HasSuffix(got, "x\npanic: no more") || strings.Contains(got, "stdout") || len(got) > logBytesMax {
		t.Errorf("%q", got)
	}
	if got := tailOf(file + "x"); got != "" {
		t.Errorf("of no file: %q", got)
	}
}
