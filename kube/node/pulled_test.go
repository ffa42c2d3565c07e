package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/image"
	"github.com/holdfast-db/holdfast/kube/image/imagetest"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// keeper is an engine that keeps images: any that it is asked for.
type keeper struct {
	images map[string]*runtime.KeptImage // By ID.
	ids    map[string]string             // Of names that are not their own.
}

func (k *keeper) Pull(_ context.Context, ref string, _ *runtime.Login) (*runtime.Image, error) {
	id := k.ids[ref]
	if id == "" {
		id = "id of " + ref
	}
	k.images[id] = &runtime.KeptImage{ID: id, Names: []string{ref}, Bytes: 10}
	return &runtime.Image{Ref: ref, ID: id}, nil
}

func (k *keeper) Present(_ context.Context, ref string) (*runtime.Image, error) {
	for _, i := range k.images {
		if slices.Contains(i.Names, ref) {
			return &runtime.Image{Ref: ref, ID: i.ID}, nil
		}
	}
	return nil, nil
}

func (k *keeper) Kept(context.Context) (all []runtime.KeptImage, err error) {
	for _, id := range slices.Sorted(maps.Keys(k.images)) {
		all = append(all, *k.images[id])
	}
	return all, nil
}

func (k *keeper) RemoveImage(_ context.Context, id string) error {
	delete(k.images, id)
	return nil
}

func (k *keeper) ImageDir(context.Context) (string, error) { return "/images", nil }

// has are the first letters of the images that it has.
func (k *keeper) has() (all string) {
	for _, id := range slices.Sorted(maps.Keys(k.images)) {
		name := strings.TrimPrefix(id, "id of docker.io/library/")
		all += name[:1]
	}
	return all
}

// imagesOn are those of a node on an engine that keeps them.
func imagesOn(t *testing.T, clk *clocktest.Fake, k *keeper) *pulled {
	t.Helper()
	store, err := image.Open(image.Config{
		Dir: t.TempDir(), Clock: clk, Logger: hclog.NewNullLogger(), KeepBlobs: true, Rootless: os.Geteuid() != 0, Used: func() (float64, error) { return 0, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	p := newPulled(store, clk, hclog.NewNullLogger())
	p.engine = k
	return p
}

func (p *pulled) want(t *testing.T, ref string) {
	t.Helper()
	if _, err := p.Resolve(t.Context(), ref, corev1.PullIfNotPresent, nil); err != nil {
		t.Fatal(err)
	}
}

func TestImagesOfAnEngineAreCollectedAsThoseOfOurOwn(t *testing.T) {
	clk, k := clocktest.New(), &keeper{images: map[string]*runtime.KeptImage{}}
	p := imagesOn(t, clk, k)
	full := 0.0
	p.fullOf = func(dir string) (float64, error) {
		if dir != "/images" {
			t.Errorf("the disk of %s is measured", dir)
		}
		return full + 10*float64(len(k.images)), nil
	}
	used := map[string]bool{"c": true}
	collect := func(fill float64, want string) {
		t.Helper()
		full = fill
		if err := p.Collect(t.Context(), used); err != nil {
			t.Fatal(err)
		}
		if got := k.has(); got != want {
			t.Errorf("left %s, want %s", got, want)
		}
	}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		p.want(t, name)
		clk.Advance(time.Hour)
	}
	k.images["id of docker.io/library/e:latest"].InUse = true // By another program.
	p.want(t, "a")                                            // Now b is the oldest.
	clk.Advance(time.Hour)
	collect(35, "abcde") // 85 % full: not above.
	collect(36, "acde")  // 86 %: b goes, 76 % are left.
	p.want(t, "d")
	collect(60, "cde") // a goes, c and e are used, d was asked for just now.
	clk.Advance(image.YoungMin)
	collect(90, "ce")
	used = nil
	collect(90, "ce") // It was in use until now.
	clk.Advance(image.YoungMin)
	collect(90, "e")
	k.images["f"] = &runtime.KeptImage{ID: "f"} // Somebody fetched it, perhaps for a container to come.
	collect(90, "fe")
	clk.Advance(image.YoungMin)
	collect(90, "e")
}

func TestWhatPeopleBringToAnEngineIsThereAtOnceAndGoesFromBothPlaces(t *testing.T) {
	built := imagetest.Image{Name: "brought.test/it:v1", Layers: [][]byte{imagetest.Layer(imagetest.File("etc/x", "x"))}}
	clk, k := clocktest.New(), &keeper{images: map[string]*runtime.KeptImage{}, ids: map[string]string{}}
	p := imagesOn(t, clk, k)
	probe, err := p.store.Import(t.Context(), bytes.NewReader(imagetest.Docker(built)))
	if err != nil {
		t.Fatal(err)
	}
	k.ids["brought.test/it:v1"] = probe[0].ID // Engines know images by the same hash.
	k.ids[image.Demo] = "id of the program"
	if err := p.store.Remove(t.Context(), probe[0].ID, nil); err != nil {
		t.Fatal(err)
	}
	made, err := p.Import(t.Context(), bytes.NewReader(imagetest.Docker(built)))
	if err != nil || len(made) != 1 || k.images[made[0].ID] == nil {
		t.Fatalf("imported %+v, %v; the engine has %v", made, err, k.images)
	}
	p.want(t, image.Demo)
	k.images["id of the program"].Names = []string{demoServed} // As the engine knows it.
	list, err := p.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range list {
		names = append(names, fmt.Sprint(i.Names))
	}
	slices.Sort(names)
	if got, want := strings.Join(names, " "), "[brought.test/it:v1] [builtin/demo]"; got != want {
		t.Errorf("there are %s, want %s", got, want)
	}
	if err := p.Remove(t.Context(), "brought.test/it:v1", map[string]bool{made[0].ID: true}); !errors.Is(err, image.ErrInUse) {
		t.Errorf("one in use is removed: %v", err)
	}
	if err := p.Remove(t.Context(), "brought.test/it:v1", nil); err != nil {
		t.Error(err)
	}
	if _, here := p.store.Present("brought.test/it:v1"); here || k.images[made[0].ID] != nil {
		t.Errorf("it is here still: %v, %v", here, k.images)
	}
	if err := p.Remove(t.Context(), "brought.test/it:v1", nil); !errors.Is(err, image.ErrAbsent) {
		t.Errorf("one that is not there is removed: %v", err)
	}
	if err := p.Remove(t.Context(), image.Demo, nil); err != nil || len(k.images) != 0 { // The engine's copy; the program is what it is.
		t.Errorf("%v, left %v", err, k.images)
	}
}
