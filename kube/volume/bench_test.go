package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/clock"
)

func benchBed(b *testing.B) (*Volumes, *store) {
	s := &store{secrets: map[string]map[string]string{"ns/s": {"user": "anna", "password": "x"}}, configMaps: map[string]map[string]string{"ns/m": {}}}
	for i := range 20 {
		s.configMaps["ns/m"][fmt.Sprintf("file%d", i)] = string(make([]byte, 1000))
	}
	v, err := New(Config{
		Dir: filepath.Join(b.TempDir(), "pods"), Objects: s, Clock: clock.Real(), Logger: hclog.NewNullLogger(),
		Allocatable: func() corev1.ResourceList { return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(v.Close)
	return v, s
}

// How long do volumes keep a pod from starting, and from being gone?
func BenchmarkVolumesOfOnePodComeAndGo(b *testing.B) {
	v, _ := benchBed(b)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		pod := podOf(emptyDir("", ""), secretVolume("s"), configVolume("m"))
		pod.UID = types.UID(fmt.Sprint("uid-", n))
		if err := v.Prepare(b.Context(), pod); err != nil {
			b.Fatal(err)
		}
		if _, err := v.Mounts(pod, &pod.Spec.Containers[0], nil); err != nil {
			b.Fatal(err)
		}
		if err := v.Remove(b.Context(), string(pod.UID)); err != nil {
			b.Fatal(err)
		}
	}
}

// What does it cost to look whether the files of a pod are as they should be?
func BenchmarkRefreshWithoutAChange(b *testing.B) {
	v, _ := benchBed(b)
	pod := podOf(secretVolume("s"), configVolume("m"))
	if err := v.Prepare(b.Context(), pod); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := v.Refresh(b.Context(), pod); err != nil {
			b.Fatal(err)
		}
	}
}

// What does it cost to measure a volume of 10,000 files?
func BenchmarkUsageOfTenThousandFiles(b *testing.B) {
	v, _ := benchBed(b)
	pod := podOf(emptyDir("", "1Gi"))
	if err := v.Prepare(b.Context(), pod); err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(v.root.path, "uid-1", volumesName, "v0")
	for i := range 10000 {
		sub := fmt.Sprintf("%s/%d", dir, i%100)
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(fmt.Sprintf("%s/%d", sub, i), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if message, exceeded := v.Exceeded(context.Background(), pod); exceeded {
			b.Fatal(message)
		}
	}
}
