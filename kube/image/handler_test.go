package image

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/kube/image/imagetest"
)

func serve(t *testing.T, s *Store) (host string) {
	t.Helper()
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestWhatIsHereIsPulledFromTheHandler(t *testing.T) {
	s := open(t, t.TempDir(), keeping)
	packed := anImage("localhost:5000/team/app:v1", base, top)
	packed.Pack = imagetest.Gzip
	importInto(t, s, imagetest.Docker(anImage("app:v1", base, top)))
	importInto(t, s, imagetest.OCI(packed))
	if got := tree(t, s.path(rootsDir)); got != "" {
		t.Errorf("unpacked for nobody: %s", got)
	}
	host := serve(t, s)
	for _, local := range []string{"app:v1", "localhost:5000/team/app:v1"} {
		at := ServedAs(host, mustParse(t, local))
		// By a client that others wrote, which compares all that there is to compare.
		ref, err := name.ParseReference(at)
		if err != nil {
			t.Fatal(err)
		}
		image, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		if local == "app:v1" { // Its layers are not packed, which the client's comparison does not know.
			if layers, err := image.Layers(); err != nil || len(layers) != 2 {
				t.Errorf("%s has the layers %v, error %v", at, layers, err)
			}
		} else if err := validate.Image(image); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		// And by another node's store.
		other := open(t, t.TempDir())
		got, err := other.Resolve(t.Context(), at, corev1.PullAlways, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != never(t, s, local).ID || tree(t, got.Layers[0]) != "etc/ etc/new=2 etc/os=holdfast" {
			t.Errorf("%s is %+v", at, got)
		}
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		pinned := mustParse(t, local)
		pinned.Digest = digest.String()
		if _, err := other.Resolve(t.Context(), ServedAs(host, pinned), corev1.PullAlways, nil); err != nil {
			t.Errorf("%s by its hash: %v", at, err)
		}
	}
}

func TestTheHandlerGivesNothingElse(t *testing.T) {
	s := open(t, t.TempDir(), keeping)
	importInto(t, s, imagetest.Docker(anImage("app:v1", base), anImage("other:v1", top)))
	host := serve(t, s)
	app, other := s.find(mustParse(t, "app:v1")), s.find(mustParse(t, "other:v1"))
	for _, c := range []struct {
		method, path string
		want         int
		body         string
	}{
		{"GET", "/v2/", 200, ""},
		{"GET", "/v2/docker.io/library/app/tags/list", 200, `{"name":"docker.io/library/app","tags":["v1"]}` + "\n"},
		{"HEAD", "/v2/docker.io/library/app/manifests/v1", 200, ""},
		{"GET", "/v2/library/app/manifests/v1?ns=docker.io", 200, ""},
		{"GET", "/v2/docker.io/library/app/manifests/" + app.Manifest, 200, ""},
		{"GET", "/v2/docker.io/library/app/blobs/" + app.Layers[0].Blob, 200, string(base)},
		{"HEAD", "/v2/docker.io/library/app/blobs/" + app.Config, 200, ""},
		{"GET", "/v2/library/app/manifests/v1", 404, ""},
		{"GET", "/v2/library/app/manifests/v1?ns=quay.io", 404, ""},
		{"GET", "/v2/docker.io/library/app/manifests/v2", 404, ""},
		{"GET", "/v2/docker.io/library/app/manifests/" + other.Manifest, 404, ""},
		{"GET", "/v2/docker.io/library/app/blobs/" + other.Layers[0].Blob, 404, ""},
		{"GET", "/v2/docker.io/library/app/blobs/..%2F..%2Findex.json", 404, ""},
		{"GET", "/v2/docker.io/library/app/blobs/sha256:..", 404, ""},
		{"GET", "/v2/x", 404, ""},
		{"GET", "/v2/host/root/manifests/latest", 404, ""},
		{"GET", "/index.json", 404, ""},
		{"PUT", "/v2/docker.io/library/app/manifests/v1", 405, ""},
		{"POST", "/v2/docker.io/library/app/blobs/uploads/", 405, ""},
		{"DELETE", "/v2/docker.io/library/app/manifests/v1", 405, ""},
	} {
		r, err := http.NewRequest(c.method, "http://"+host+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != c.want || c.body != "" && string(b) != c.body {
			t.Errorf("%s %s is %d, want %d, error %v: %.200s", c.method, c.path, answer.StatusCode, c.want, err, b)
		}
	}
}

func TestTheBuiltInImageIsThisProgram(t *testing.T) {
	s := open(t, t.TempDir(), keeping)
	image := never(t, s, Demo)
	if image.Entrypoint[0] != demoProgram || image.Entrypoint[1] != "demo" || !strings.HasPrefix(image.ID, Demo+"@") || len(image.Layers) != 1 {
		t.Fatalf("image %+v", image)
	}
	if again := never(t, s, Demo); again.ID != image.ID || again.Layers[0] != image.Layers[0] {
		t.Errorf("again it is %+v", again)
	}
	info, err := os.Stat(filepath.Join(image.Layers[0], "tmp"))
	if err != nil || info.Mode().Perm() != 0o777 || info.Mode()&os.ModeSticky == 0 {
		t.Errorf("tmp is %v, error %v", info.Mode(), err)
	}
	// Engines that pull get the same from the handler.
	other := open(t, t.TempDir())
	got, err := other.Resolve(t.Context(), serve(t, s)+"/"+Demo, corev1.PullAlways, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Entrypoint[1] != "demo" || got.User != "0" {
		t.Errorf("pulled %+v", got)
	}
	for _, root := range []string{image.Layers[0], got.Layers[0]} {
		libraries, err := librariesOf(filepath.Join(root, demoProgram))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range libraries {
			if !exists(filepath.Join(root, path)) {
				t.Errorf("%s lacks %s", root, path)
			}
		}
	}
}

// TestTheBuiltInImageRunsWhereThereIsNothingElse has this test's own program start in
// it: static, or with libraries if cgo or the race detector is in it.
func TestTheBuiltInImageRunsWhereThereIsNothingElse(t *testing.T) {
	needRoot(t)
	s := open(t, t.TempDir(), layered)
	image := never(t, s, Demo)
	cmd := exec.Command(demoProgram, "-test.list", "TestTheBuiltInImageRuns")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: image.Layers[0]}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "TestTheBuiltInImageRunsWhereThereIsNothingElse") {
		libraries, _ := librariesOf(filepath.Join(image.Layers[0], demoProgram))
		t.Errorf("it needs %q; error %v: %s", libraries, err, out)
	}
}

func TestLibrariesOfAProgramAreFoundWithThoseThatTheyNeed(t *testing.T) {
	static, err := librariesOf(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("this test needs %q", static)
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err) // Package exec's own tests need one too.
	}
	libraries, err := librariesOf(shell)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range libraries {
		if !exists(path) {
			t.Errorf("sh needs %s, which is not there", path)
		}
	}
	if len(libraries) == 1 {
		t.Errorf("sh has a loader and no libraries: %q", libraries)
	}
	if _, err := librariesOf("/etc/passwd"); err == nil {
		t.Error("a text is a program")
	}
}

func TestAnUpdateOfTheProgramKeepsTheOldOneForItsContainers(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(t.TempDir(), "program")
	use := func(from string) (*Store, string, string) {
		t.Helper()
		if err := os.RemoveAll(program); err != nil {
			t.Fatal(err)
		}
		if err := copyFile(from, program); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, func(c *Config) { c.Executable = program })
		image := never(t, s, Demo)
		return s, image.ID, image.Layers[0]
	}
	s, oldID, oldRoot := use("/bin/sh")
	s.Close()
	s, newID, newRoot := use(os.Args[0])
	if oldID == newID || oldRoot == newRoot {
		t.Fatalf("%s and %s", oldID, newID)
	}
	if _, err := s.Collect(t.Context(), map[string]bool{oldID: true}, 100, 100); err != nil {
		t.Fatal(err)
	}
	if !exists(oldRoot) || !exists(newRoot) {
		t.Error("a container lost its root")
	}
	if _, err := s.Collect(t.Context(), nil, 100, 100); err != nil {
		t.Fatal(err)
	}
	if exists(oldRoot) || !exists(newRoot) {
		t.Errorf("old %v, new %v", exists(oldRoot), exists(newRoot))
	}
}

func TestTheRootOfTheNodeIsSeenAndNotChanged(t *testing.T) {
	needRoot(t)
	s := open(t, t.TempDir(), layered)
	image := never(t, s, HostRoot)
	probe := "/holdfast-image-test"
	script := `mount --make-rprivate / && mount -t tmpfs t "$1" && mkdir "$1/u" "$1/w" "$1/m" && mount -t overlay o -o "lowerdir=$2,upperdir=$1/u,workdir=$1/w" "$1/m" &&
		touch "$1/m` + probe + `" && test -e "$1/m/bin/sh"`
	cmd := exec.Command("sh", "-c", script, "sh", t.TempDir(), strings.Join(image.Layers, ":"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("overlay: %v: %s", err, out)
	}
	if exists(probe) {
		os.Remove(probe)
		t.Error("the node was changed")
	}
}

func TestWithoutOverlaysTheRootOfTheNodeIsAFolderOfLinks(t *testing.T) {
	s := open(t, t.TempDir())
	image := never(t, s, HostRoot)
	if len(image.Layers) != 1 || image.Layers[0] == "/" {
		t.Fatalf("layers %q: an engine would copy the node", image.Layers)
	}
	// Copied elsewhere, as an engine does.
	target, err := os.Readlink(filepath.Join(image.Layers[0], "bin"))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "bin")
	if err := os.Symlink(target, copied); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(copied, "sh"), "-c", "echo it runs").CombinedOutput(); err != nil || string(out) != "it runs\n" {
		t.Errorf("error %v: %s", err, out)
	}
	never(t, s, Demo)
	if _, err := s.Collect(t.Context(), nil, 100, 100); err != nil {
		t.Fatal(err)
	}
	if again := never(t, s, HostRoot); again.Layers[0] != image.Layers[0] || !exists(again.Layers[0]) {
		t.Errorf("again %+v", again)
	}
}
