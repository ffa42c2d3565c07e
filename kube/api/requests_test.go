package api

import (
	"fmt"
	"math"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestWhatAPodIsCountedAs: sums, peaks of init containers, sidecars from their
// start on, limits where nothing is asked for.
func TestWhatAPodIsCountedAs(t *testing.T) {
	for _, c := range []struct{ name, spec, want string }{
		{"a sum", `containers: [{resources: {requests: {cpu: 200m, memory: 500Mi}}}, {resources: {requests: {cpu: "1"}}}]`,
			"1200m 524288000 0 map[] []"},
		{"an init container that asks for more", `{initContainers: [{resources: {requests: {cpu: "2"}}}, {resources: {requests: {memory: 1}}}], containers: [{resources: {requests: {cpu: 1, memory: 5}}}]}`,
			"2000m 5 0 map[] []"},
		{"a sidecar beside what starts after it", `{initContainers: [{resources: {requests: {cpu: 1500m}}}, {restartPolicy: Always, resources: {requests: {cpu: 500m}}}, {resources: {requests: {cpu: "2"}}}], containers: [{resources: {requests: {cpu: 1}}}]}`,
			"2500m 0 0 map[] []"},
		{"a limit alone", `containers: [{resources: {limits: {cpu: 1, ephemeral-storage: 7}, requests: {cpu: 1m}}}]`,
			"1m 0 7 map[] []"},
		{"less than a thousandth", `containers: [{resources: {requests: {cpu: 100u}}}]`,
			"1m 0 0 map[] []"},
		{"overhead and what has a name", `{overhead: {memory: 3}, containers: [{resources: {requests: {example.com/x: 2}}}, {resources: {requests: {example.com/x: 1}}}]}`,
			"0m 3 0 map[example.com/x:3] []"},
		{"ports of the node", `{initContainers: [{ports: [{hostPort: 1}]}, {restartPolicy: Always, ports: [{hostPort: 2, protocol: UDP}]}], containers: [{ports: [{containerPort: 3}, {containerPort: 4, hostPort: 5, hostIP: 0.0.0.0}]}]}`,
			"0m 0 0 map[] [{ TCP 5} { UDP 2}]"},
		{"ports on the node's network", `{hostNetwork: true, containers: [{ports: [{containerPort: 3}]}]}`,
			"0m 0 0 map[] [{ TCP 3}]"},
		{"more than there can be", fmt.Sprintf(`containers: [{resources: {requests: {cpu: %d, memory: %[1]d}}}, {resources: {requests: {memory: 1}}}]`, int64(math.MaxInt64)),
			"9223372036854775807m 9223372036854775807 0 map[] []"},
	} {
		spec := c.spec
		if spec[0] != '{' {
			spec = "{" + spec + "}"
		}
		pod := Pod.New().(*corev1.Pod)
		decodeInto(t, spec, &pod.Spec)
		r := PodRequests(&pod.Spec)
		got := fmt.Sprintf("%dm %d %d %v %v", r.MilliCPU, r.Memory, r.EphemeralStorage, r.Extended, r.HostPorts)
		if got != c.want || r.Pods != 1 {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestPortsOfANodeConflict(t *testing.T) {
	all, one, other := HostPort{"", "TCP", 80}, HostPort{"10.0.0.1", "TCP", 80}, HostPort{"10.0.0.2", "TCP", 80}
	for _, c := range []struct {
		p, q HostPort
		want bool
	}{
		{all, all, true}, {all, one, true}, {one, all, true}, {one, one, true}, {one, other, false},
		{all, HostPort{"", "UDP", 80}, false}, {all, HostPort{"", "TCP", 81}, false},
	} {
		if c.p.Conflicts(c.q) != c.want {
			t.Errorf("%v and %v: want %v", c.p, c.q, c.want)
		}
	}
}

func decodeInto(t *testing.T, text string, into any) {
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}
