package tidy

import (
	"go/ast"
	"slices"
	"strings"
)

// free are folders where a rule does not hold, and why.
type free map[string]string

func (x free) has(dir string) bool {
	for top := range x {
		if under(dir, top) {
			return true
		}
	}
	return false
}

var (
	freeTime = free{
		"internal/clock": "is the clock",
		"internal/leak":  "watches the runtime, which has no other clock",
		"cmd":            "people wait in real time",
		"tools":          "never part of a server",
	}
	freeFiles = free{
		"internal/vfs":    "is the file system",
		"internal/golden": "reads and writes the source tree",
		"internal/pages":  "what a process has mapped is read from /proc",
		"internal/tidy":   "reads the source tree",
		"kube/image":      "makes trees with owners, links and devices for overlayfs",
		"cmd":             "reads and writes what the user names",
		"tools":           "never part of a server",

		"kube/node":               "what a machine has is read from /proc, /sys and /etc",
		"kube/runtime/cgroup":     "cgroups are the machine's",
		"kube/runtime/cri":        "cgroups, namespaces and logs are the machine's, and shared with the container runtime",
		"kube/runtime/logfile":    "a container's output ends in a file of the machine, whose disk may be full",
		"kube/runtime/supervisor": "its files are the machine's: /proc, cgroups, locks, sockets, programs",
		"kube/runtime/supervised": "as for supervisor",
		"kube/runtime/stage":      "as for supervisor",
		"kube/runtime/process":    "as for supervisor",
		"kube/runtime/native":     "as for supervisor",
	}
	freeRandom = free{
		"cmd": "a load generator draws its keys",
	}
	freeGo = free{
		"internal/task": "is where goroutines start",
	}
	freePanic = free{
		"internal/assert": "is where panics start",
		"internal/task":   "adds the goroutine's name to a panic on its way",
	}
)

var (
	timeCalls = []string{"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Since", "Until"}
	fileCalls = []string{
		"Open", "OpenFile", "Create", "CreateTemp", "ReadFile", "WriteFile", "ReadDir", "Remove", "RemoveAll", "Rename", "Mkdir",
		"MkdirAll", "MkdirTemp", "Stat", "Lstat", "Truncate", "Chmod", "Chtimes", "Link", "Symlink", "OpenRoot", "CopyFS",
	}
)

// shipped calls fn for each file that becomes part of a program, outside some
// folders.
func shipped(t *Tree, except free, fn func(f *file)) {
	for _, f := range t.files {
		if !f.test && !f.nested && !except.has(f.dir) {
			fn(f)
		}
	}
}

// uses reports each use of a name of an imported package.
func uses(t *Tree, f *file, imported string, names []string, found report) {
	as := ""
	for _, spec := range f.syntax.Imports {
		if strings.Trim(spec.Path.Value, `"`) == imported {
			as = imported[strings.LastIndex(imported, "/")+1:]
			if spec.Name != nil {
				as = spec.Name.Name
			}
		}
	}
	if as == "" {
		return
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == as && slices.Contains(names, sel.Sel.Name) {
				found(f.path, t.line(sel.Pos()), imported+"."+sel.Sel.Name)
			}
		}
		return true
	})
}

func checkTime(t *Tree, found report) {
	shipped(t, freeTime, func(f *file) { uses(t, f, "time", timeCalls, found) })
}

func checkSleep(t *Tree, found report) {
	for _, f := range t.files {
		if f.test && !under(f.dir, "tests") {
			uses(t, f, "time", []string{"Sleep"}, found)
		}
	}
}

// checkQuick finds what is left out of make quick elsewhere than in a test's
// first line.
func checkQuick(t *Tree, found report) {
	for _, f := range t.files {
		first := map[int]bool{}
		eachFunction(f, func(d *ast.FuncDecl) {
			if f.test && d.Recv == nil && strings.HasPrefix(d.Name.Name, "Test") && len(d.Body.List) > 0 {
				first[t.line(d.Body.List[0].Pos())] = true
			}
		})
		uses(t, f, modulePath+"/internal/quick", []string{"LeaveOut"}, func(path string, line int, detail string) {
			if !first[line] {
				found(path, line, detail)
			}
		})
	}
}

func checkFiles(t *Tree, found report) {
	shipped(t, freeFiles, func(f *file) {
		uses(t, f, "os", fileCalls, found)
		eachImport(t, f, func(line int, imported string) {
			if imported == "io/ioutil" {
				found(f.path, line, "imports "+imported)
			}
		})
	})
}

func checkRandom(t *Tree, found report) {
	shipped(t, freeRandom, func(f *file) {
		eachImport(t, f, func(line int, imported string) {
			if under(imported, "math/rand") {
				found(f.path, line, "imports "+imported)
			}
		})
	})
}

func checkGo(t *Tree, found report) {
	shipped(t, freeGo, func(f *file) {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if n, ok := n.(*ast.GoStmt); ok {
				found(f.path, t.line(n.Pos()), "go statement")
			}
			return true
		})
		eachImport(t, f, func(line int, imported string) {
			if imported == "golang.org/x/sync/errgroup" {
				found(f.path, line, "imports "+imported)
			}
		})
	})
}

func checkPanic(t *Tree, found report) {
	shipped(t, freePanic, func(f *file) {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "panic" {
					found(f.path, t.line(n.Pos()), "panic")
				}
			}
			return true
		})
	})
}

func checkInit(t *Tree, found report) {
	shipped(t, nil, func(f *file) {
		eachFunction(f, func(d *ast.FuncDecl) {
			if d.Recv == nil && d.Name.Name == "init" {
				found(f.path, t.line(d.Pos()), "func init")
			}
		})
	})
}
