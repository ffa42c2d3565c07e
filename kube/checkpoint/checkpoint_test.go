package checkpoint

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

func pod(uid, image string) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID = "default", "web-1", types.UID(uid)
	p.Spec.NodeName = "n1"
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: image}}
	return p
}

// The bytes that were written once are read for ever.
func TestTheBytesOfAVersionStay(t *testing.T) {
	history := Encode(History, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	golden.File(t, "testdata/v1/history.hex", hex.Dump(history))
	text, err := os.ReadFile("testdata/v1/newer.hex")
	if err != nil {
		t.Fatal(err)
	}
	newer, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Decode(newer); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a newer version: %v", err)
	}
	k, payload, err := Decode(history)
	if err != nil || k != History || !bytes.Equal(payload, []byte{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("%v %x, %v", k, payload, err)
	}
}

func TestEachChangedBitOfAFileIsFound(t *testing.T) {
	b := Encode(Pod, []byte("what a pod is"))
	for i := range 8 * len(b) {
		changed := bytes.Clone(b)
		changed[i/8] ^= 1 << (i % 8)
		if _, _, err := Decode(changed); err == nil {
			t.Errorf("bit %d is not missed", i)
		}
	}
	for n := range len(b) {
		if _, _, err := Decode(b[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d of %d bytes: %v", n, len(b), err)
		}
	}
}

func TestWhatWasPutIsLoadedAndDamageIsToldByName(t *testing.T) {
	mem := vfstest.NewMem()
	f, err := Open(mem, "checkpoints")
	if err != nil {
		t.Fatal(err)
	}
	node := &corev1.Node{}
	node.Name = "n1"
	for _, err := range []error{f.PutPod(pod("a", "x")), f.PutPod(pod("b", "x")), f.PutPod(pod("a", "y")), f.PutNode(node), f.PutHistory(7), f.RemovePod("none")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := f.Load()
	if err != nil || len(s.Pods) != 2 || s.Pods[0].Spec.Containers[0].Image != "y" || s.Node.Name != "n1" || s.History != 7 || len(s.Damaged) != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := f.RemovePod("b"); err != nil {
		t.Fatal(err)
	}
	if err := f.write(podPrefix+"c", Pod, []byte("no pod")); err != nil {
		t.Fatal(err)
	}
	if err := f.put(podPrefix+"d", Pod, pod("e", "x")); err != nil { // Of another's name.
		t.Fatal(err)
	}
	if s, err = f.Load(); err != nil || len(s.Pods) != 1 || len(s.Damaged) != 2 || s.Damaged[0].Pod != "c" || s.Damaged[1].Pod != "d" {
		t.Errorf("%+v, %v", s, err)
	}
}

// The version before a damaged one stands in for it. Where that is damaged too the pod
// is told as lost, by every load until it is removed or written anew.
func TestADamagedFileIsPutAsideAndTheOneBeforeItStandsIn(t *testing.T) {
	mem := vfstest.NewMem()
	f, err := Open(mem, "checkpoints")
	if err != nil {
		t.Fatal(err)
	}
	flip := func(name string) {
		t.Helper()
		if err := mem.Flip("checkpoints/"+name, 20, 3); err != nil {
			t.Fatal(err)
		}
	}
	load := func(images, lost, damaged, files string) {
		t.Helper()
		s, err := f.Load()
		if err != nil {
			t.Fatal(err)
		}
		var is, bad []string
		for _, p := range s.Pods {
			is = append(is, p.Spec.Containers[0].Image)
		}
		for _, d := range s.Damaged {
			bad = append(bad, filepath.Base(d.File))
		}
		names, err := mem.List("checkpoints")
		if got := fmt.Sprint(is, s.Lost, bad, names, err); got != images+" "+lost+" "+damaged+" "+files+" <nil>" {
			t.Errorf("%s", got)
		}
	}
	for _, err := range []error{f.PutPod(pod("a", "one")), f.PutPod(pod("a", "two")), f.PutHistory(7)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	flip("pod-a")
	flip("history")
	load("[one]", "[]", "[history.damaged pod-a.damaged]", "[history.damaged pod-a.before pod-a.damaged]")
	load("[one]", "[]", "[]", "[history.damaged pod-a.before pod-a.damaged]")
	if err := f.PutPod(pod("a", "three")); err != nil {
		t.Fatal(err)
	}
	flip("pod-a")
	flip("pod-a.before")
	lost := "[pod-a.damaged pod-a.before.damaged]"
	files := "[history.damaged pod-a.before.damaged pod-a.damaged]"
	load("[]", "[a]", lost, files)
	load("[]", "[a]", lost, files)
	flip("pod-a.damaged") // As if a newer program could read it.
	load("[three]", "[]", "[]", files)
	if err := f.RemovePod("a"); err != nil {
		t.Fatal(err)
	}
	load("[]", "[]", "[]", "[history.damaged]")
}

// Whatever a put was at when the power went, the pod is there.
func TestAPutThatIsCutOffLeavesThePod(t *testing.T) {
	for step := 0; ; step++ {
		mem := vfstest.NewMem()
		f, err := Open(mem, "checkpoints")
		if err == nil {
			err = f.PutPod(pod("a", "one"))
		}
		if err == nil {
			err = f.PutPod(pod("a", "two"))
		}
		if err != nil {
			t.Fatal(err)
		}
		left, cut := step, errors.New("cut off")
		mem.Inject(func(vfstest.Op) error {
			if left--; left < 0 {
				return cut
			}
			return nil
		})
		done := f.PutPod(pod("a", "three"))
		for _, image := range vfstest.Images {
			after, err := Open(mem.Crash(vfstest.Crash{Image: image, Keep: -1}), "checkpoints")
			if err != nil {
				t.Fatal(err)
			}
			s, err := after.Load()
			if err != nil || len(s.Pods) != 1 || len(s.Damaged) > 0 || s.Pods[0].Spec.Containers[0].Image == "one" && done == nil {
				t.Errorf("after %d operations, %v: %+v, %v", step, image, s, err)
			}
		}
		if done == nil {
			return
		}
	}
}

// After a power cut a pod is there as it was put, before or after the cut, and what
// was put before the last sync is there at all.
func TestAPowerCutLeavesOneOrTheOther(t *testing.T) {
	for _, image := range vfstest.Images {
		t.Run(image.String(), func(t *testing.T) {
			x := rand.New(rand.NewPCG(1, 2))
			mem := vfstest.NewMem()
			f, err := Open(mem, "checkpoints")
			if err != nil {
				t.Fatal(err)
			}
			was := map[string]string{}
			for i := range 60 {
				uid, text := fmt.Sprint("u", x.IntN(5)), fmt.Sprint("image", i)
				if x.IntN(4) == 0 {
					err = f.RemovePod(types.UID(uid))
					delete(was, uid)
				} else {
					err = f.PutPod(pod(uid, text))
					was[uid] = text
				}
				if err != nil {
					t.Fatal(err)
				}
				after, err := Open(mem.Crash(vfstest.Crash{Image: image, Rand: x, Keep: -1}), "checkpoints")
				if err != nil {
					t.Fatal(err)
				}
				s, err := after.Load()
				if err != nil || len(s.Damaged) > 0 {
					t.Fatalf("%+v, %v", s, err)
				}
				is := map[string]string{}
				for _, p := range s.Pods {
					is[string(p.UID)] = p.Spec.Containers[0].Image
				}
				if fmt.Sprint(is) != fmt.Sprint(was) {
					t.Fatalf("step %d: %v, put were %v", i, is, was)
				}
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(Pod, []byte("x")))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, payload, err := Decode(b); err == nil && !bytes.Equal(Encode(k, payload), b) {
			t.Error("it is written otherwise")
		}
	})
}
