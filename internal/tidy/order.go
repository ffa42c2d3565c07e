package tidy

import (
	"go/ast"
	"go/types"
	"slices"
)

// ordered reports whether a folder's code decides bytes of state or of
// messages, where the order of a map must never show.
func ordered(dir string) bool {
	return under(dir, "mvcc") || under(dir, "statemachine") || dir == "raftnode"
}

// checkMapRanges needs types, so it checks each such package as a compiler
// would. What does not compile is left to the compiler to report.
func checkMapRanges(t *Tree, found report) {
	packages := map[string][]*ast.File{}
	var dirs []string
	for _, f := range t.files {
		if f.test || f.nested || !ordered(f.dir) {
			continue
		}
		if packages[f.dir] == nil {
			dirs = append(dirs, f.dir)
		}
		packages[f.dir] = append(packages[f.dir], f.syntax)
	}
	for _, dir := range dirs {
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
		config := types.Config{Importer: t.importer, Error: func(error) {}}
		_, _ = config.Check(modulePath+"/"+dir, t.fset, packages[dir], info)
		for _, syntax := range packages[dir] {
			ast.Inspect(syntax, func(n ast.Node) bool {
				if r, ok := n.(*ast.RangeStmt); ok && (overMap(info, r.X) || overMapIterator(r.X)) {
					found(t.fset.Position(r.Pos()).Filename, t.line(r.Pos()), "range over a map")
				}
				return true
			})
		}
	}
}

func overMap(info *types.Info, x ast.Expr) bool {
	typ := info.Types[x].Type
	if typ == nil {
		return false
	}
	_, isMap := typ.Underlying().(*types.Map)
	return isMap
}

// overMapIterator finds maps.Keys and its like, unless something sorts them.
func overMapIterator(x ast.Expr) bool {
	call, ok := x.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && pkg.Name == "maps" && slices.Contains([]string{"Keys", "Values", "All"}, sel.Sel.Name)
}
