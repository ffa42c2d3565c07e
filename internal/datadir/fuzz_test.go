package datadir

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// FuzzFiles takes anything for IDENTITY and CURRENT, with and without a good
// checksum. What is read can be written and is then read again.
func FuzzFiles(f *testing.F) {
	f.Add(`{"Format":1,"Body":{"Cluster":1,"Member":2,"Timeline":3,"Incarnation":4}}`, true)
	f.Add(`{"Format":1,"Body":{"Generation":7}}`, true)
	f.Add(`{"Format":2,"Body":{}}`, true)
	f.Add("{\"Format\":1,\"Body\":{\"Generation\":7}}\n00000000\n", false)
	f.Fuzz(func(t *testing.T, text string, seal bool) {
		if seal {
			text = fmt.Sprintf("%s\n%08x\n", text, checksum([]byte(text)))
		}
		fsys := vfstest.NewMem()
		d, err := Open(fsys, "data")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, name := range []string{identityName, currentName} {
			if err := vfs.ReplaceFile(fsys, filepath.Join("data", name), []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if id, err := d.Identity(); err == nil {
			if err := d.SetIdentity(id); err != nil {
				t.Fatal(err)
			}
			if again, err := d.Identity(); err != nil || again != id {
				t.Errorf("%+v is read again as %+v, %v", id, again, err)
			}
		}
		if _, err := d.Current(); err == nil {
			if err := d.Tidy(); err != nil {
				t.Error(err)
			}
		}
	})
}
