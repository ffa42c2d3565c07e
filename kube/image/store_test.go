package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/image/imagetest"
	"github.com/holdfast-db/holdfast/kube/runtime"
)

// TestMain is also the process that TestAKillAtAnyStepLeavesNoHalfImage kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HOLDFAST_TEST_KILLED"); dir != "" {
		importAndDie(dir)
	}
	os.Exit(m.Run())
}

func open(t testing.TB, dir string, change ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Dir: dir, Logger: hclog.New(&hclog.LoggerOptions{Output: &testLog{t}, Level: hclog.Debug}), Rootless: true}
	for _, f := range change {
		f(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

type testLog struct{ t testing.TB }

func (l *testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func layered(c *Config) { c.Rootless = false }
func keeping(c *Config) { c.KeepBlobs = true }

func anImage(name string, layers ...[]byte) imagetest.Image {
	return imagetest.Image{Name: name, Layers: layers, Config: map[string]any{
		"Env": []string{"A=1"}, "Entrypoint": []string{"/bin/app"}, "Cmd": []string{"-x"}, "WorkingDir": "/srv", "User": "7:8", "StopSignal": "SIGINT",
	}}
}

var (
	base = imagetest.Layer(dir("etc"), file("etc/os", "holdfast"), file("etc/old", "1"))
	top  = imagetest.Layer(file("etc/new", "2"), file("etc/.wh.old", ""))
)

func importInto(t *testing.T, s *Store, archive []byte) []Info {
	t.Helper()
	infos, err := s.Import(t.Context(), bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	return infos
}

func never(t *testing.T, s *Store, name string) *runtime.Image {
	t.Helper()
	image, err := s.Resolve(t.Context(), name, corev1.PullNever, nil)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func TestArchivesOfAllKindsAreImportedByTheirContent(t *testing.T) {
	image := anImage("team/app:v1", base, top)
	packed := func(f func([]byte) []byte) imagetest.Image {
		image := image
		image.Pack = f
		return image
	}
	for _, c := range []struct {
		name    string
		archive []byte
	}{
		{"docker", imagetest.Docker(image)},
		{"docker, layers in gzip", imagetest.Docker(packed(imagetest.Gzip))},
		{"docker, all in gzip", imagetest.Gzip(imagetest.Docker(image))},
		{"docker, all in zstd", imagetest.Zstd(imagetest.Docker(image))},
		{"OCI", imagetest.OCI(image)},
		{"OCI, layers in gzip", imagetest.OCI(packed(imagetest.Gzip))},
		{"OCI, layers in zstd, all in gzip", imagetest.Gzip(imagetest.OCI(packed(imagetest.Zstd)))},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			// As a tunnel gives it: in pieces.
			infos, err := s.Import(t.Context(), iotest.HalfReader(bytes.NewReader(c.archive)))
			if err != nil {
				t.Fatal(err)
			}
			id := imagetest.Digest(image.Build().Config)
			if packedID := infos[0].ID; len(infos) != 1 || packedID != id || infos[0].Names[0] != "docker.io/team/app:v1" || !infos[0].Imported {
				t.Errorf("imported %+v, want ID %s", infos, id)
			}
			got := never(t, s, "team/app:v1")
			if got.ID != id || got.Ref != "team/app:v1" || fmt.Sprintf("%v %v %v %s %s %s", got.Env, got.Entrypoint, got.Cmd, got.WorkingDir, got.User, got.StopSignal) != "[A=1] [/bin/app] [-x] /srv 7:8 SIGINT" {
				t.Errorf("resolved %+v", got)
			}
			if len(got.Layers) != 1 || tree(t, got.Layers[0]) != "etc/ etc/new=2 etc/os=holdfast" {
				t.Errorf("layers %q: %s", got.Layers, tree(t, got.Layers[0]))
			}
			if info, ok := s.Present("team/app:v1"); !ok || info.Bytes != 9+1 {
				t.Errorf("present %v, %+v", ok, info)
			}
		})
	}
}

func TestArchivesThatLieAreRefusedAndLeaveNothing(t *testing.T) {
	good := anImage("app:v1", base)
	foreign := good
	foreign.Architecture = "s390x"
	nameless := good
	nameless.Name = ""
	evil := anImage("app:v1", base, imagetest.Layer(file("../../evil", "1")))
	wrong := good.Build()
	flipped := bytes.Replace(imagetest.OCI(good), []byte("holdfast"), []byte("h0ldfast"), 1)
	for _, c := range []struct {
		name    string
		archive []byte
		want    error
	}{
		{"another machine's", imagetest.Docker(foreign), ErrPlatform},
		{"without a name", imagetest.Docker(nameless), ErrName},
		{"a name that is none", imagetest.Docker(imagetest.Image{Name: "Team/App", Layers: [][]byte{base}}), ErrName},
		{"an evil layer", imagetest.Docker(evil), ErrContent},
		{"a layer changed on its way", flipped, ErrContent},
		{"no image", imagetest.Layer(file("a", "1")), ErrContent},
		{"an empty list", imagetest.Layer(file("manifest.json", "[]")), ErrContent},
		{"a list that is none", imagetest.Layer(file("manifest.json", "{")), ErrContent},
		{"a configuration that is not there", imagetest.Layer(file("manifest.json", `[{"Config":"../../../etc/passwd","RepoTags":["a:b"],"Layers":[]}]`)), ErrContent},
		{"a layer that is not there", imagetest.Layer(file("c", string(wrong.Config)), file("manifest.json", `[{"Config":"c","RepoTags":["a:b"],"Layers":["/etc/passwd"]}]`)), ErrContent},
		{"a link to a file of the machine", imagetest.Layer(symlink("c", "/etc/passwd"), file("manifest.json", `[{"Config":"c","RepoTags":["a:b"],"Layers":[]}]`)), ErrContent},
		{"another number of layers", imagetest.Layer(file("c", string(wrong.Config)), file("manifest.json", `[{"Config":"c","RepoTags":["a:b"],"Layers":[]}]`)), ErrContent},
		{"a hash as a path", imagetest.Layer(file("index.json", `{"schemaVersion":2,"manifests":[{"digest":"sha256:../../../index.json","size":1}]}`)), ErrContent},
		{"cut off", imagetest.Docker(good)[:3000], ErrContent},
		{"cut off in gzip", imagetest.Gzip(imagetest.Docker(good))[:200], io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			infos, err := s.Import(t.Context(), bytes.NewReader(c.archive))
			if !errors.Is(err, c.want) {
				t.Errorf("imported %+v, error %v, want %v", infos, err, c.want)
			}
			if err := s.sweep(); err != nil {
				t.Fatal(err)
			}
			if got := tree(t, s.cfg.Dir); got != "blobs/ blobs/sha256/ builtin/ layers/ lock= roots/ tmp/" {
				t.Errorf("left: %s", got)
			}
		})
	}
}

func TestLayersAreSharedAndForOverlayfsTheTopmostComesFirst(t *testing.T) {
	needRoot(t)
	s := open(t, t.TempDir(), layered)
	importInto(t, s, imagetest.Docker(anImage("a:v1", base, top), anImage("b:v1", base)))
	a, b := never(t, s, "a:v1"), never(t, s, "b:v1")
	if len(a.Layers) != 2 || len(b.Layers) != 1 || a.Layers[1] != b.Layers[0] {
		t.Fatalf("layers %q and %q", a.Layers, b.Layers)
	}
	if got := tree(t, b.Layers[0]); got != "etc/ etc/old=1 etc/os=holdfast" {
		t.Errorf("base is %s", got)
	}
	// It is what the kernel takes for a whiteout.
	merged := mountOverlay(t, strings.Join(a.Layers, ":"))
	if merged != "etc/ etc/new=2 etc/os=holdfast" {
		t.Errorf("overlay shows %s", merged)
	}
	entries, err := os.ReadDir(s.path(blobsDir))
	if err != nil || len(entries) != 4 { // Two manifests and configurations; no packed layers.
		t.Errorf("blobs %v, error %v", entries, err)
	}
}

// mountOverlay shows layers as a container would see them, in a mount namespace of its
// own.
func mountOverlay(t *testing.T, lower string) string {
	t.Helper()
	dir := t.TempDir()
	script := `mount --make-rprivate / && mount -t tmpfs t "$1" && mkdir "$1/u" "$1/w" "$1/m" && mount -t overlay o -o "lowerdir=$2,upperdir=$1/u,workdir=$1/w" "$1/m" && cd "$1/m" &&
		find . -mindepth 1 \( -type d -printf '%P/ ' -o -type f -printf '%P=' -exec cat {} \; -printf ' ' \)`
	cmd := exec.Command("sh", "-c", script, "sh", dir, lower)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("overlay of %s: %v: %s", lower, err, out)
	}
	fields := strings.Fields(string(out))
	slices.Sort(fields)
	return strings.Join(fields, " ")
}

func TestPoliciesDecideWhetherTheRegistryIsAsked(t *testing.T) {
	s := open(t, t.TempDir())
	importInto(t, s, imagetest.Docker(anImage("127.0.0.1:1/app:v1", base), anImage("127.0.0.1:1/app:latest", base, top)))
	for _, c := range []struct {
		name   string
		policy corev1.PullPolicy
		asks   bool
	}{
		{"127.0.0.1:1/app:v1", corev1.PullIfNotPresent, false},
		{"127.0.0.1:1/app:v1", corev1.PullNever, false},
		{"127.0.0.1:1/app:v1", "", false},
		{"127.0.0.1:1/app", "", true},
		{"127.0.0.1:1/app", corev1.PullNever, false},
		{"127.0.0.1:1/app:v1", corev1.PullAlways, true},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if c.asks {
			cancel() // Nobody listens there: the question is enough.
		}
		_, err := s.Resolve(ctx, c.name, c.policy, nil)
		cancel()
		if (err != nil) != c.asks {
			t.Errorf("%s with policy %q: error %v", c.name, c.policy, err)
		}
	}
	if _, err := s.Resolve(t.Context(), "missing", corev1.PullNever, nil); !errors.Is(err, ErrAbsent) || !errors.Is(err, runtime.ErrImage) {
		t.Errorf("missing: %v", err)
	}
	if _, err := s.Resolve(t.Context(), "No Name", corev1.PullNever, nil); !errors.Is(err, ErrName) {
		t.Errorf("no name: %v", err)
	}
}

func TestRemovingTakesNamesAndWithTheLastTheImage(t *testing.T) {
	s := open(t, t.TempDir())
	image := anImage("app:v1", base)
	again := image
	again.Name = "app:v2"
	importInto(t, s, imagetest.Docker(image, again))
	if list := s.List(); len(list) != 1 || len(list[0].Names) != 2 {
		t.Fatalf("list %+v", list)
	}
	id := never(t, s, "app:v1").ID
	used := map[string]bool{id: true}
	if err := s.Remove(t.Context(), "app:v1", used); err != nil {
		t.Errorf("a name of two: %v", err)
	}
	if err := s.Remove(t.Context(), "app:v1", used); !errors.Is(err, ErrAbsent) {
		t.Errorf("the name again: %v", err)
	}
	for _, by := range []string{"app:v2", id} {
		if err := s.Remove(t.Context(), by, used); !errors.Is(err, ErrInUse) {
			t.Errorf("the last name, in use: %v", err)
		}
		if err := s.Remove(t.Context(), by, map[string]bool{"docker.io/library/app:v2": true}); !errors.Is(err, ErrInUse) {
			t.Errorf("the last name, in use by name: %v", err)
		}
	}
	never(t, s, "app:v2")
	if err := s.Remove(t.Context(), id, nil); err != nil {
		t.Error(err)
	}
	if got := tree(t, s.path(blobsDir)) + tree(t, s.path(rootsDir)); got != "" || len(s.List()) != 0 {
		t.Errorf("left %s, list %+v", got, s.List())
	}
	if err := s.Remove(t.Context(), Demo, nil); err == nil {
		t.Error("a built-in image is removed")
	}
}

func TestATagThatMovesLeavesTheOldImageToItsContainers(t *testing.T) {
	s := open(t, t.TempDir())
	importInto(t, s, imagetest.Docker(anImage("app:v1", base)))
	before := never(t, s, "app:v1")
	importInto(t, s, imagetest.Docker(anImage("app:v1", base, top)))
	after := never(t, s, "app:v1")
	if before.ID == after.ID || !exists(before.Layers[0]) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if list := s.List(); len(list) != 2 || len(list[0].Names)+len(list[1].Names) != 1 {
		t.Errorf("list %+v", list)
	}
}

func TestAFullDiskCostsTheImagesThatNobodyUsedForLongest(t *testing.T) {
	clk := clocktest.New()
	full := 0.0
	var s *Store
	s = open(t, t.TempDir(), func(c *Config) {
		c.Clock = clk
		c.Used = func() (float64, error) { return full + 10*float64(len(s.List())), nil }
	})
	for i, name := range []string{"a", "b", "c", "d"} {
		importInto(t, s, imagetest.Docker(anImage(name+":v1", imagetest.Layer(file("n", strconv.Itoa(i))))))
		clk.Advance(time.Hour)
	}
	never(t, s, "a:v1") // Now b is the oldest.
	clk.Advance(time.Hour)
	used := map[string]bool{"c:v1": true}
	names := func() string {
		var names []string
		for _, i := range s.List() {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(i.Names[0], "docker.io/library/"), ":v1"))
		}
		slices.Sort(names)
		return strings.Join(names, "")
	}
	collect := func(fill float64, want string) {
		t.Helper()
		full = fill
		if _, err := s.Collect(t.Context(), used, 85, 80); err != nil {
			t.Fatal(err)
		}
		if got := names(); got != want {
			t.Errorf("left %s, want %s", got, want)
		}
	}
	collect(45, "abcd") // 85 % full: not above.
	collect(46, "acd")  // 86 %: b goes, 76 % are left.
	clk.Advance(time.Hour)
	never(t, s, "d:v1")
	collect(60, "cd") // a goes, c is used, d was asked for just now.
	clk.Advance(YoungMin)
	collect(90, "c")
	used = nil
	collect(90, "")
}

func TestAStoreHasOneProcessAndOneVersion(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	importInto(t, s, imagetest.Docker(anImage("app:v1", base)))
	if _, err := Open(s.cfg); err == nil {
		t.Error("a second one is open")
	}
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	newer := []byte("{\"version\": 2, \"pictures\": []}\n")
	if err := os.WriteFile(filepath.Join(dir, indexFile), newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a newer version: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, indexFile)); err != nil || !bytes.Equal(b, newer) || tree(t, filepath.Join(dir, rootsDir)) == "" {
		t.Error("a newer version was changed")
	}
}

func TestDamageIsFoundAtTheStart(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, s *Store)
		left   int
	}{
		{"none", func(*testing.T, *Store) {}, 2},
		{"index cut off", func(t *testing.T, s *Store) { write(t, s.path(indexFile), `{"version": 1, "images": [`) }, 0},
		{"index with a path for a hash", func(t *testing.T, s *Store) {
			write(t, s.path(indexFile), `{"version": 1, "images": [{"manifest": "sha256:../../x", "config": "", "layers": []}]}`)
		}, 0},
		{"configuration changed", func(t *testing.T, s *Store) {
			write(t, s.blobPath(never(t, s, "app:v1").ID), `{}`)
		}, 1},
		{"manifest gone", func(t *testing.T, s *Store) {
			if err := os.Remove(s.blobPath(s.find(mustParse(t, "app:v1")).Manifest)); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"root gone", func(t *testing.T, s *Store) {
			if err := os.RemoveAll(filepath.Dir(never(t, s, "app:v1").Layers[0])); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"waste", func(t *testing.T, s *Store) {
			write(t, s.path(tmpDir, "blob-1"), "x")
			write(t, s.path(blobsDir, strings.Repeat("0", 64)), "x")
			if err := os.MkdirAll(s.path(layersDir, strings.Repeat("1", 64), "fs", "closed"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			importInto(t, s, imagetest.Docker(anImage("app:v1", base), anImage("other:v1", top)))
			c.damage(t, s)
			s.Close()
			s = open(t, dir)
			if list := s.List(); len(list) != c.left {
				t.Errorf("list %+v, want %d", list, c.left)
			}
			if got := tree(t, s.path(tmpDir)) + tree(t, s.path(layersDir)); got != "" || exists(s.path(blobsDir, strings.Repeat("0", 64))) {
				t.Errorf("waste is left: %s", got)
			}
			importInto(t, s, imagetest.Docker(anImage("app:v1", base)))
			if got := tree(t, never(t, s, "app:v1").Layers[0]); got != "etc/ etc/old=1 etc/os=holdfast" {
				t.Errorf("imported again: %s", got)
			}
		})
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustParse(t *testing.T, text string) Reference {
	t.Helper()
	ref, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestTheIndexHasItsGoldenBytes(t *testing.T) {
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	images := map[string]*record{
		digest("b"): {Manifest: digest("b"), Config: digest("c"), Pins: []string{"quay.io/team/app@" + digest("b")}, Layers: []layer{}, Imported: true, Added: at, Used: at},
		digest("a"): {Manifest: digest("a"), Config: digest("d"), Names: []string{"docker.io/library/nginx:latest"}, Layers: []layer{{Blob: digest("1"), Diff: digest("2"), Bytes: 3}}, Added: at, Used: at.Add(time.Hour)},
	}
	b, err := encodeIndex(images)
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/v1/index.json", string(b))
	read, err := decodeIndex(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := encodeIndex(read)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("read and written again, error %v:\n%s", err, again)
	}
}

func FuzzDecodeIndex(f *testing.F) {
	b, err := os.ReadFile("testdata/v1/index.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		images, err := decodeIndex(b)
		if err != nil {
			return
		}
		for _, r := range images {
			for _, digest := range r.digests() {
				if !digestForm.MatchString(digest) {
					t.Errorf("hash %q is taken", digest)
				}
			}
		}
	})
}

// importAndDie is the process that is killed before the step that it is told.
func importAndDie(dir string) {
	left, err := strconv.Atoi(os.Getenv("HOLDFAST_TEST_STEP"))
	if err != nil {
		panic(err)
	}
	s, err := Open(Config{Dir: dir, Logger: hclog.NewNullLogger(), Rootless: os.Geteuid() != 0, KeepBlobs: os.Getenv("HOLDFAST_TEST_KEEP") != "", step: func(string) {
		if left--; left < 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	if err != nil {
		panic(err)
	}
	if _, err := s.Import(context.Background(), bytes.NewReader(imagetest.Docker(killed...))); err != nil {
		panic(err)
	}
	if err := s.Remove(context.Background(), "gone:v1", nil); err != nil {
		panic(err)
	}
	fmt.Println("done")
	os.Exit(0)
}

var killed = []imagetest.Image{anImage("app:v1", base, top), anImage("gone:v1", top)}

func TestAKillAtAnyStepLeavesNoHalfImage(t *testing.T) {
	for step := 0; ; step++ {
		dir := inMemory(t)
		done := runKilled(t, dir, step)
		s := open(t, dir, func(c *Config) { c.Rootless = os.Geteuid() != 0 })
		for _, info := range s.List() {
			image := never(t, s, info.Names[0])
			want := map[string]string{"app:v1": "[etc/ etc/new=2 etc/os=holdfast]", "gone:v1": "[etc/ etc/new=2]"}
			if os.Geteuid() == 0 {
				want = map[string]string{"app:v1": "[etc/ etc/new=2 etc/old D--------- etc/ etc/old=1 etc/os=holdfast]", "gone:v1": "[etc/ etc/new=2 etc/old D---------]"}
			}
			var got []string
			for _, l := range image.Layers {
				got = append(got, tree(t, l))
			}
			name := strings.TrimPrefix(info.Names[0], "docker.io/library/")
			if text := strings.ReplaceAll(fmt.Sprint(got), "Dc---------", "D---------"); text != want[name] {
				t.Errorf("killed before step %d: %s is %s, want %s", step, name, text, want[name])
			}
		}
		if waste := tree(t, s.path(tmpDir)); waste != "" {
			t.Errorf("killed before step %d: waste %s", step, waste)
		}
		importInto(t, s, imagetest.Docker(killed...)) // What is left does not stand in the way.
		never(t, s, "app:v1")
		s.Close()
		if done {
			if step < 10 {
				t.Errorf("only %d steps", step)
			}
			t.Logf("%d steps", step)
			return
		}
	}
}

// inMemory is a folder for what is killed and not switched off: there syncs cost
// nothing, where there is such a place and it is large enough.
func inMemory(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	if free, err := vfs.OS().Free(memory); err != nil || free < 2*freeBytesMin {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "holdfast-image-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { removeTree(dir) })
	return dir
}

func runKilled(t *testing.T, dir string, step int) (done bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_KILLED="+dir, "HOLDFAST_TEST_STEP="+strconv.Itoa(step))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return strings.HasSuffix(string(out), "done\n")
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("step %d: %v: %s", step, err, out)
	}
	return false
}
