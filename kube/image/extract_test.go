package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/kube/image/imagetest"
)

var file, dir, symlink, hardlink = imagetest.File, imagetest.Dir, imagetest.Symlink, imagetest.Link

// needRoot leaves a test out, or fails where nothing may be left out.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal("this test needs root: layers for overlayfs have owners and devices")
	}
	t.Skip("this test needs root: layers for overlayfs have owners and devices")
}

// lay unpacks layers into one folder without root's means.
func lay(t *testing.T, root string, layers ...[]byte) error {
	t.Helper()
	for _, l := range layers {
		x, err := newExtractor(root, false, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		_, err = x.extract(bytes.NewReader(l))
		x.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// tree lists a folder: names, kinds, contents.
func tree(t testing.TB, root string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil || at == root {
			return err
		}
		name, _ := filepath.Rel(root, at)
		switch d.Type() {
		case fs.ModeDir:
			name += "/"
		case fs.ModeSymlink:
			target, _ := os.Readlink(at)
			name += "->" + target
		case 0:
			b, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			name += "=" + string(b)
		default:
			name += " " + d.Type().String()
		}
		lines = append(lines, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

func TestLayersLieOneOverTheOther(t *testing.T) {
	layer := imagetest.Layer
	for _, c := range []struct {
		name   string
		layers [][]byte
		want   string
	}{
		{"files and folders", [][]byte{layer(dir("etc/"), file("etc/a", "1"), file("./b", "2"), file("/c", "3"))}, "b=2 c=3 etc/ etc/a=1"},
		{"folders that nobody made", [][]byte{layer(file("a/b/c", "1"))}, "a/ a/b/ a/b/c=1"},
		{"the later of two of one name", [][]byte{layer(file("a", "1"), file("a", "2")), layer(file("a", "3"))}, "a=3"},
		{"a folder becomes a file", [][]byte{layer(file("a/b", "1")), layer(file("a", "2"))}, "a=2"},
		{"a file becomes a folder", [][]byte{layer(file("a", "1")), layer(dir("a"), file("a/b", "2"))}, "a/ a/b=2"},
		{"a link becomes a folder", [][]byte{layer(dir("x"), symlink("a", "x")), layer(dir("a"), file("a/b", "2"))}, "a/ a/b=2 x/"},
		{"a link is followed where it is a folder of the way", [][]byte{layer(dir("usr/lib"), symlink("lib", "usr/lib")), layer(file("lib/b", "2"))}, "lib->usr/lib usr/ usr/lib/ usr/lib/b=2"},
		{"an absolute link is followed within", [][]byte{layer(dir("run"), symlink("var/run", "/run")), layer(file("var/run/b", "2"))}, "run/ run/b=2 var/ var/run->/run"},
		{"a folder stays with what it has", [][]byte{layer(file("a/b", "1")), layer(dir("a"), file("a/c", "2"))}, "a/ a/b=1 a/c=2"},
		{"a whiteout", [][]byte{layer(file("a/b", "1"), file("a/c", "2")), layer(file("a/.wh.b", ""))}, "a/ a/c=2"},
		{"a whiteout of a folder", [][]byte{layer(file("a/b/c", "1")), layer(file("a/.wh.b", ""))}, "a/"},
		{"a whiteout of nothing", [][]byte{layer(file(".wh.b", ""))}, ""},
		{"a whiteout before the same name", [][]byte{layer(file("a/old", "1")), layer(file(".wh.a", ""), file("a/new", "2"))}, "a/ a/new=2"},
		{"a whiteout after the same name", [][]byte{layer(file("a/old", "1")), layer(file("a/new", "2"), file(".wh.a", ""))}, "a/ a/new=2"},
		{"an opaque folder", [][]byte{layer(file("a/old", "1"), file("a/x/old", "1")), layer(dir("a"), file("a/x/new", "2"), file("a/.wh..wh..opq", ""), file("a/n", "3"))}, "a/ a/n=3 a/x/ a/x/new=2"},
		{"leftovers of aufs", [][]byte{layer(dir(".wh..wh.plnk"), file(".wh..wh.aufs", ""), file("a", "1"))}, "a=1"},
		{"hard links", [][]byte{layer(file("a", "1"), hardlink("b/c", "a"), hardlink("d", "/b/c"))}, "a=1 b/ b/c=1 d=1"},
		{"the root itself", [][]byte{layer(dir("./"), file("a", "1"))}, "a=1"},
		{"devices are left out", [][]byte{layer(tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8})}, "dev/"},
		{"a pipe", [][]byte{layer(tar.Header{Name: "p", Typeflag: tar.TypeFifo})}, "p p---------"},
		{"a global header", [][]byte{layer(tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}, file("a", "1"))}, "a=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			if err := lay(t, root, c.layers...); err != nil {
				t.Fatal(err)
			}
			if got := tree(t, root); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestEvilLayersAreRefusedAndTouchNothingOutside(t *testing.T) {
	layer := imagetest.Layer
	for _, c := range []struct {
		name string
		data []byte
		want error // nil: taken, but within.
	}{
		{"a name that leaves", layer(file("../evil", "1")), ErrContent},
		{"a name that leaves from within", layer(file("a/../../evil", "1")), ErrContent},
		{"a folder that leaves", layer(dir("../evil")), ErrContent},
		{"a relative link out, then a file", layer(symlink("x", "../../outside"), file("x/evil", "1")), ErrContent},
		{"an absolute link out, then a file", layer(symlink("x", "/"), file("x/evil", "1")), nil},
		{"a link out, then a file of its name", layer(symlink("secret", "../outside/secret"), file("secret", "evil")), nil},
		{"a hard link out", layer(hardlink("x", "../outside/secret")), ErrContent},
		{"a hard link through a link out", layer(symlink("d", "../outside"), hardlink("x", "d/secret"), file("x", "evil")), ErrContent},
		{"a hard link to a link out, then a file", layer(symlink("d", "../outside/secret"), hardlink("x", "d"), file("x", "evil")), nil},
		{"a hard link to nothing", layer(hardlink("x", "y")), ErrContent},
		{"a hard link to the root", layer(hardlink("x", ".")), ErrContent},
		{"a whiteout that leaves", layer(file("a/../../outside/.wh.secret", "")), ErrContent},
		{"a whiteout of the folder above", layer(file("a/.wh...", "")), ErrContent},
		{"a whiteout of the folder", layer(file("a/.wh..", "")), ErrContent},
		{"a whiteout of nothing", layer(file("a/.wh.", "")), ErrContent},
		{"a whiteout through a link out", layer(symlink("d", "../outside"), file("d/.wh.secret", "")), ErrContent},
		{"an opaque folder through a link out", layer(symlink("d", "../outside"), file("d/.wh..wh..opq", "")), ErrContent},
		{"links in a circle", layer(symlink("a", "b"), symlink("b", "a"), file("a/x", "1")), ErrContent},
		{"a file as a folder", layer(file("a", "1"), file("a/b", "2")), ErrContent},
		{"a file of the root's name", layer(file(".", "1")), ErrContent},
		{"a link of the root's name", layer(symlink("./", "/etc")), ErrContent},
		{"a link to nothing", layer(symlink("a", "")), ErrContent},
		{"a file larger than the limit", sized(1 << 21), ErrContent},
		{"a file that says it is huge", sized(1 << 62), ErrContent},
		{"a tar that ends early", layer(file("a", strings.Repeat("x", 2000)))[:1024], ErrContent},
		{"no tar", []byte(strings.Repeat("holdfast", 200)), ErrContent},
		{"an unknown kind", layer(tar.Header{Name: "a", Typeflag: 'V'}), ErrContent},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			root, outside := filepath.Join(top, "root"), filepath.Join(top, "outside")
			for _, d := range []string{root, outside} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("safe"), 0o644); err != nil {
				t.Fatal(err)
			}
			err := lay(t, root, c.data)
			if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if got := tree(t, outside); got != "secret=safe" {
				t.Errorf("outside is now %s", got)
			}
			if exists(filepath.Join(top, "evil")) || exists("/evil") {
				t.Error("a file is outside")
			}
		})
	}
}

func TestNamesDoNotTakeTheMemoryOfTheNode(t *testing.T) {
	x, err := newExtractor(t.TempDir(), false, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	x.names = layerNamesMax - 300
	if _, err := x.extract(bytes.NewReader(imagetest.Layer(file("a/b", ""), file("a/c", "")))); err != nil {
		t.Fatalf("within the limit: %v", err)
	}
	if _, err := x.extract(bytes.NewReader(imagetest.Layer(file("a/d", ""), file("a/e", "")))); !errors.Is(err, ErrContent) {
		t.Errorf("above the limit: %v", err)
	}
	x.names = layerNamesMax - 100
	if _, err := x.extract(bytes.NewReader(imagetest.Layer(file("a/.wh.x", ""), file("a/.wh.y", "")))); !errors.Is(err, ErrContent) {
		t.Errorf("of what is hidden: %v", err)
	}
}

// sized is a tar whose only file says that it has a size.
func sized(bytes int64) []byte {
	var b strings.Builder
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: bytes, Mode: 0o644}); err != nil {
		panic(err)
	}
	return []byte(b.String())
}

func TestRightsOfOthersAreNotTakenWithoutRoot(t *testing.T) {
	root := t.TempDir()
	evil := file("su", "1")
	evil.Mode = 0o4755
	closed := dir("closed")
	closed.Mode = 0o1
	if err := lay(t, root, imagetest.Layer(evil, closed, file("closed/a", "1"))); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(root, "su")); err != nil || info.Mode() != 0o755 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(root, "closed")); err != nil || info.Mode().Perm() != 0o701 || !info.ModTime().Equal(imagetest.Stamp) {
		t.Errorf("mode %v, time %v, error %v", info.Mode(), info.ModTime(), err)
	}
}

func TestALayerForOverlayfsKeepsOwnersAndMarksWhatIsHidden(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	x, err := newExtractor(root, true, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	owned := file("su", "12345")
	owned.Mode, owned.Uid, owned.Gid = 0o4755, 1234, 5678
	marked := file("marked", "1")
	marked.PAXRecords = map[string]string{"SCHILY.xattr.user.mine": "yes", "SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y"}
	bytesGot, err := x.extract(bytes.NewReader(imagetest.Layer(
		owned, file("a/.wh.b", ""), file("c/.wh..wh..opq", ""), file(".wh.d", ""), file("d/new", "1"), file("e/new", "1"), file(".wh.e", ""), file(".wh.f", ""), file("f/g/new", "1"),
		tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Name: "su2", Typeflag: tar.TypeChar}, marked)))
	if err != nil || bytesGot != 8 {
		t.Fatalf("%d bytes, error %v", bytesGot, err)
	}
	stat := func(name string) (st unix.Stat_t) {
		t.Helper()
		if err := unix.Lstat(filepath.Join(root, name), &st); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return st
	}
	if st := stat("su"); st.Uid != 1234 || st.Gid != 5678 || st.Mode&0o7777 != 0o4755 || st.Mtim.Sec != imagetest.Stamp.Unix() {
		t.Errorf("su is %d:%d %o %v", st.Uid, st.Gid, st.Mode, st.Mtim)
	}
	if st := stat("a/b"); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("a whiteout is %o, device %d", st.Mode, st.Rdev)
	}
	if st := stat("null"); st.Mode != unix.S_IFCHR|0o666 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("null is %o, device %d", st.Mode, st.Rdev)
	}
	if exists(filepath.Join(root, "su2")) {
		t.Error("a device 0:0 of the image hides a file")
	}
	attribute := func(name, key string) string {
		b := make([]byte, 64)
		n, err := unix.Lgetxattr(filepath.Join(root, name), key, b)
		if err != nil {
			return ""
		}
		return string(b[:n])
	}
	for _, opaque := range []string{"c", "d", "e", "f"} {
		if got := attribute(opaque, "trusted.overlay.opaque"); got != "y" {
			t.Errorf("%s is not opaque: %q", opaque, got)
		}
	}
	if got := attribute("marked", "trusted.overlay.redirect") + attribute("marked", "user.overlay.opaque"); got != "" {
		t.Errorf("an image set an attribute of overlayfs: %q", got)
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(imagetest.Layer(file("a/b", "1"), symlink("c", "../x"), hardlink("d", "a/b"), file("a/.wh.b", "")))
	f.Add(imagetest.Layer(symlink("x", "/"), file("x/evil", "1"), file("x/.wh..wh..opq", "")))
	f.Add(imagetest.Layer(dir("./"), file("../../evil", "1")))
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		root := filepath.Join(top, "a", "root")
		if err := os.MkdirAll(root, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, "secret"), []byte("safe"), 0o644); err != nil {
			t.Fatal(err)
		}
		x, err := newExtractor(root, false, 1<<16)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = x.extract(bytes.NewReader(data)) // Errors are fine; what they leave is looked at.
		x.close()
		entries, err := os.ReadDir(top)
		if err != nil || len(entries) != 2 {
			t.Errorf("the folder above has %v, error %v", entries, err)
		}
		if b, err := os.ReadFile(filepath.Join(top, "secret")); err != nil || string(b) != "safe" {
			t.Errorf("a file outside is %q, error %v", b, err)
		}
		if entries, err := os.ReadDir(filepath.Dir(root)); err != nil || len(entries) != 1 {
			t.Errorf("beside the root there is %v, error %v", entries, err)
		}
		if err := removeTree(root); err != nil {
			t.Error(err)
		}
	})
}
