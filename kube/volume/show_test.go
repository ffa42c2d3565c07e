package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzFiles has a volume show one content after the other: lines of path, =, text; an
// empty line begins the next. A process that writes into the folder meanwhile put
// something in the way. What is shown is what should be, or nothing changed.
func FuzzFiles(f *testing.F) {
	f.Add("a=1\nb/c=2\n\na/x=1\nb=2\n\na=3", "a", uint8(0))
	f.Add("a=1\n\na=1\nb=2", "..data", uint8(3))
	f.Add("x/y/z=1\n\nx=2", "x", uint8(12))
	f.Add("a=1", "..link_tmp", uint8(1))
	f.Add("../a=1\n\n/b=1\n\n..c=1\n\na=1\na/b=2", "", uint8(0))
	f.Fuzz(func(t *testing.T, text, stray string, deaths uint8) {
		if len(text) > 1<<10 || len(stray) > 64 {
			return
		}
		base := t.TempDir()
		left := -1
		dir, err := openFolder(base, func(string) error {
			if left--; left == 0 {
				return errDeath
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer dir.close()
		for i, part := range strings.Split(text, "\n\n") {
			c := content{}
			for line := range strings.SplitSeq(part, "\n") {
				if name, data, ok := strings.Cut(line, "="); ok && len(name) < 200 {
					c[name] = file{[]byte(data), 0o640}
				}
			}
			if c.check() != nil || unclean(c) {
				continue
			}
			if single(stray) && i == 1 {
				_ = os.MkdirAll(filepath.Join(base, stray, "in the way"), 0o700) // It may be there, and no folder.
			}
			left = int(deaths) // The first attempt dies, perhaps.
			err := dir.swap(time.Unix(0, 0), c, -1)
			left = -1
			if err != nil && !errors.Is(err, errDeath) {
				t.Fatal(err)
			}
			if err := dir.swap(time.Unix(0, 0), c, -1); err != nil {
				t.Fatal(err)
			}
			got := tree(t, base)
			if len(got) != len(c) {
				t.Fatalf("shown is %q, and not %v", got, c)
			}
			for name, want := range c {
				if data, there := got[name]; !there || data != string(want.data) {
					t.Fatalf("%s shows %q, and not %q", name, data, want.data)
				}
			}
		}
	})
}

// unclean tells paths that never come so far: those of objects are cleaned before.
func unclean(c content) bool {
	for name := range c {
		if filepath.Clean(name) != name {
			return true
		}
	}
	return false
}
