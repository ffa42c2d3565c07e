//go:build linux

package supervised

import (
	"encoding/json"
	"testing"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/supervisor"
)

func TestFormOfAPodsFileIsThatOfVersion1(t *testing.T) {
	text, err := json.MarshalIndent(Pod{Version: supervisor.Version, IP: "10.244.1.7", Spec: runtime.PodSpec{
		UID: "u1", Namespace: "default", Name: "web", Hostname: "web", Dir: "/pods/u1", Class: runtime.Burstable,
		Resources: runtime.Resources{RequestMilliCPU: 100}, DNS: runtime.DNS{Servers: []string{"10.0.0.10"}}, Hosts: []runtime.Host{{IP: "10.0.0.1", Names: []string{"a"}}},
	}}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/v1/pod.json", string(text)+"\n")
}

func TestSupervisorsWordForAWantOfMemoryIsThatOfEngines(t *testing.T) {
	if supervisor.OOMKilled != runtime.OOMKilled {
		t.Errorf("%q and %q", supervisor.OOMKilled, runtime.OOMKilled)
	}
}

func TestSignalsAreReadByNameAndNumber(t *testing.T) {
	for name, want := range map[string]int{"": 15, "SIGTERM": 15, "quit": 3, "9": 9, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63} {
		if got, err := Signal(name); got != want || err != nil {
			t.Errorf("%q is %d, %v", name, got, err)
		}
	}
	for _, name := range []string{"SIGNONE", "0", "65", "RTMAX+1", "+3", "RTMIN+x"} {
		if got, err := Signal(name); err == nil {
			t.Errorf("%q is %d", name, got)
		}
	}
}
