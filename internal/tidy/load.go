package tidy

import (
	"bytes"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Load reads a repository as it lies in a folder, whether committed or not.
func Load(root string) (*Tree, error) {
	texts := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "bin", "demo"}, rel) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || rel == ".git" { // A second work tree has a file of that name.
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		// Golden bytes count as present, but not as text.
		text := ""
		if utf8.Valid(data) && !bytes.ContainsRune(data, 0) {
			text = string(data)
		}
		texts[filepath.ToSlash(rel)] = text
		return nil
	})
	if err != nil {
		return nil, err
	}
	imports, err := importsOf(root)
	if err != nil {
		return nil, err
	}
	return newTree(texts, imports)
}

// importsOf finds the compiled form of everything that the ordered packages
// import in the build cache, which is much quicker than reading the sources.
func importsOf(root string) (types.Importer, error) {
	cmd := exec.Command("go", "list", "-e", "-export", "-deps", "-f", "{{if .Export}}{{.ImportPath}}\t{{.Export}}{{end}}",
		"./mvcc/...", "./statemachine/...", "./raftnode")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.Bytes())
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, file, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			exports[name] = file
		}
	}
	return importer.ForCompiler(token.NewFileSet(), "gc", func(name string) (io.ReadCloser, error) {
		file := exports[name]
		if file == "" {
			return nil, fmt.Errorf("%s is not compiled", name)
		}
		return os.Open(file)
	}), nil
}
