package conformance

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/kube/runtime"
)

// Files is what the images are made from.
type Files struct {
	Layer   string // A folder: the only layer.
	Outside string // A folder of the machine, to which the symlink /escape of the layer points.
	Program string // The path of the program within the layer. Its name is told apart from all others'.
}

// Images are some with the same files.
type Images struct {
	Plain        *runtime.Image
	WithUser     *runtime.Image // Its user is 1234:2345.
	WithName     *runtime.Image // Its user is "somebody", who is 777 with the group 888.
	WithStranger *runtime.Image // Its user is nobody whom it knows.
	WithSignal   *runtime.Image // Its stop signal is SIGUSR1, number 10.
}

// All are all of them, to be replaced by what an engine has pulled.
func (i *Images) All() []**runtime.Image {
	return []**runtime.Image{&i.Plain, &i.WithUser, &i.WithName, &i.WithStranger, &i.WithSignal}
}

// ProgramVariable is of the environment. It names the built program where there is no
// Go: on a guest that has nothing but the test.
const ProgramVariable = "HOLDFAST_CONFORMANCE_PROGRAM"

// NewFiles makes the layer, with the program built into it.
func NewFiles(t *testing.T) *Files {
	t.Helper()
	dir := folder(t)
	f := &Files{Layer: filepath.Join(dir, "layer"), Outside: filepath.Join(dir, "outside"), Program: "/bin/inside-" + random(4)}
	for _, name := range []string{f.Outside, f.in("bin"), f.in("etc"), f.in("work"), f.in("tmp"), f.in("data"), f.in("proc"), f.in("sys"), f.in("dev")} {
		must(t, os.MkdirAll(name, 0o755))
	}
	must(t, os.Chmod(f.in("tmp"), 0o1777))
	must(t, os.WriteFile(f.in("etc/passwd"), []byte("root:x:0:0:root:/:/none\nsomebody:x:777:888::/work:/none\n"), 0o644))
	must(t, os.WriteFile(f.in("etc/group"), []byte("root:x:0:\nsome:x:888:\n"), 0o644))
	must(t, os.WriteFile(f.in("etc/original"), []byte("from the image"), 0o644))
	must(t, os.WriteFile(f.in("bin/text"), []byte("not a program"), 0o644))
	must(t, os.Symlink(f.Outside, f.in("escape")))
	build(t, f.in(f.Program))
	return f
}

func (f *Files) in(name string) string { return filepath.Join(f.Layer, name) }

// Images are the images as engines take them that are given layers.
func (f *Files) Images() Images {
	image := func(name string) *runtime.Image {
		return &runtime.Image{
			Ref: "conformance.test/" + name + ":1", ID: "conformance-" + name, Layers: []string{f.Layer},
			Env:        []string{"PATH=/bin", "FROM=image", "KEPT=yes"},
			Entrypoint: []string{f.Program}, Cmd: []string{"report", "by", "the", "image"}, WorkingDir: "/work",
		}
	}
	all := Images{Plain: image("plain"), WithUser: image("user"), WithName: image("name"), WithStranger: image("stranger"), WithSignal: image("signal")}
	all.WithUser.User = "1234:2345"
	all.WithName.User = "somebody"
	all.WithStranger.User = "stranger"
	all.WithSignal.StopSignal = "SIGUSR1"
	return all
}

// build makes the program: static, since there are no libraries in the image.
func build(t *testing.T, to string) {
	t.Helper()
	if made := os.Getenv(ProgramVariable); made != "" {
		b, err := os.ReadFile(made)
		must(t, err)
		must(t, os.WriteFile(to, b, 0o755))
		return
	}
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", to, "github.com/holdfast-db/holdfast/kube/runtime/conformance/inside")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program of the images: %v\n%s", err, out)
	}
}

// folder is a temporary one that other users may enter: containers run as some.
func folder(t *testing.T) string {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// number is a number that may also be absent.
func number[T any](n T) *T { return &n }

// random is some bytes as hexadecimal digits.
func random(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}
