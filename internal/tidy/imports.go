package tidy

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// layer is a row of the import table: a folder, and the folders it may import.
// A folder that ends in /* stands for those directly below, one that ends in
// /... for itself and all below.
type layer struct {
	folder string
	may    []string
}

// table is section 1 of DESIGN. Everybody may import proto and internal.
var table = []layer{
	{"internal/...", nil},
	{"proto/...", nil},
	{"mvcc/backend", nil},
	{"mvcc/history", nil},
	{"raftnode/wal", nil},
	{"raftnode/transport", nil},
	{"snapshot/blobstore", nil},
	{"client/...", []string{"client/..."}},
	{"pki", nil},
	{"mvcc", []string{"mvcc/backend", "mvcc/history"}},
	{"mvcc/watch", []string{"mvcc", "mvcc/history"}},
	{"statemachine/*", []string{"mvcc/backend"}},
	{"statemachine", []string{"mvcc", "mvcc/history", "statemachine/*"}},
	{"raftnode", []string{"raftnode/wal", "raftnode/transport"}},
	{"snapshot", snapshotMay},
	{"snapshot/etcd", append([]string{"snapshot"}, snapshotMay...)},
	{"snapshot/archive", append([]string{"snapshot"}, snapshotMay...)},
	{"snapshot/recovery", []string{"snapshot/archive", "snapshot", "raftnode/wal"}},
	{"server/...", []string{"server/...", "snapshot/...", "raftnode/...", "statemachine/...", "mvcc/...", "client/...", "pki"}},
	{"kube/kubetest", []string{"client/...", "pki", "kube/...", "server/servertest"}}, // Tests stand on a real store.
	{"kube/...", []string{"client/...", "pki", "kube/..."}},
	{"cmd/...", []string{"cmd/...", "kube/...", "server/...", "snapshot/...", "raftnode/...", "statemachine/...", "mvcc/...", "client/...", "pki"}},
}

var snapshotMay = []string{"statemachine/...", "mvcc/...", "raftnode/wal", "snapshot/blobstore"}

func matches(folder, pattern string) bool {
	if top, ok := strings.CutSuffix(pattern, "/..."); ok {
		return under(folder, top)
	}
	if top, ok := strings.CutSuffix(pattern, "/*"); ok {
		return path.Dir(folder) == top
	}
	return folder == pattern
}

// rowOf finds the row of a folder. A package of fakes has its parent's.
func rowOf(dir string) (layer, bool) {
	i := slices.IndexFunc(table, func(l layer) bool { return matches(dir, l.folder) })
	if i >= 0 {
		return table[i], true
	}
	if parent := path.Dir(dir); fake(dir) && parent != "." {
		row, ok := rowOf(parent)
		row.may = append(slices.Clone(row.may), parent)
		return row, ok
	}
	return layer{}, false
}

func checkImports(t *Tree, found report) {
	strangers := map[string]bool{}
	for _, f := range t.files {
		if f.nested || under(f.dir, "tests") {
			continue // Tests of the whole import anything.
		}
		row, ok := rowOf(f.dir)
		if !ok {
			if !strangers[f.dir] {
				found(f.path, 1, fmt.Sprintf("folder %s has no row in the import table", f.dir))
			}
			strangers[f.dir] = true
			continue
		}
		eachImport(t, f, func(line int, imported string) {
			to, ours := strings.CutPrefix(imported, modulePath+"/")
			if ours && !mayImport(f, row, to) {
				found(f.path, line, fmt.Sprintf("%s may not import %s", f.dir, to))
			}
		})
	}
}

func mayImport(f *file, row layer, to string) bool {
	if under(to, "proto") || under(to, "internal") || to == f.dir {
		return true
	}
	if under(to, "tests") || under(to, "cmd") && !under(f.dir, "cmd") {
		return false
	}
	// Whoever may use a package may use its fake in tests.
	if f.test && fake(to) && (path.Dir(to) == f.dir || mayImport(f, row, path.Dir(to))) {
		return true
	}
	return slices.ContainsFunc(row.may, func(pattern string) bool { return matches(to, pattern) })
}

// eachImport calls fn for each import of a file.
func eachImport(t *Tree, f *file, fn func(line int, imported string)) {
	for _, spec := range f.syntax.Imports {
		fn(t.line(spec.Pos()), strings.Trim(spec.Path.Value, `"`))
	}
}

// onlyIn keeps a module of others out of all folders but some.
func onlyIn(module string, folders ...string) func(t *Tree, found report) {
	return func(t *Tree, found report) {
		for _, f := range t.files {
			if f.nested || slices.ContainsFunc(folders, func(top string) bool { return under(f.dir, top) }) {
				continue
			}
			eachImport(t, f, func(line int, imported string) {
				if under(imported, module) {
					found(f.path, line, fmt.Sprintf("%s imports %s, which belongs in %s", f.dir, imported, strings.Join(folders, ", ")))
				}
			})
		}
	}
}

func checkFakes(t *Tree, found report) {
	for _, f := range t.files {
		if f.test || f.nested {
			continue
		}
		eachImport(t, f, func(line int, imported string) {
			if to, ours := strings.CutPrefix(imported, modulePath+"/"); ours && fake(to) || imported == "testing" && !forTests(f.dir) {
				found(f.path, line, "imports "+imported)
			}
		})
	}
}

// forTests reports whether a folder helps tests without being a fake.
func forTests(dir string) bool {
	return slices.Contains([]string{"internal/golden", "internal/leak", "internal/quick", "internal/tidy"}, dir)
}

func checkDeterministic(t *Tree, found report) {
	forbidden := []string{
		modulePath + "/internal/clock", modulePath + "/internal/vfs", modulePath + "/internal/task",
		"crypto/rand", "net", "os", "math/rand", "math/rand/v2",
	}
	for _, f := range t.files {
		if f.test || !under(f.dir, "statemachine") {
			continue
		}
		eachImport(t, f, func(line int, imported string) {
			if slices.Contains(forbidden, imported) {
				found(f.path, line, "the state machine imports "+imported)
			}
		})
	}
}
