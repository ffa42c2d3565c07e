package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
)

// libraryDirs are where loaders of Linux look without being told.
var libraryDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// librariesOf lists what a program needs beside itself to start: nothing if it is
// static, as our releases are; its loader and its libraries if somebody built it with
// cgo, or with the race detector.
func librariesOf(program string) ([]string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", program, err)
	}
	defer f.Close()
	loader := ""
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				return nil, err
			}
			loader = string(b[:max(len(b)-1, 0)]) // Ends with a zero.
		}
	}
	if loader == "" {
		return nil, nil
	}
	paths := []string{loader}
	names, err := f.ImportedLibraries()
	for len(names) > 0 && err == nil {
		var path string
		var more []string
		if path, more, err = findLibrary(names[0], f.Machine); err == nil && !slices.Contains(paths, path) {
			paths, names = append(paths, path), append(names, more...)
		}
		names = names[1:]
	}
	return paths, err
}

func findLibrary(name string, machine elf.Machine) (path string, needs []string, err error) {
	for _, dir := range libraryDirs {
		path := filepath.Join(dir, name)
		f, err := elf.Open(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && f.Machine != machine {
			continue
		}
		if err != nil {
			return "", nil, err
		}
		needs, err := f.ImportedLibraries()
		return path, needs, errors.Join(err, f.Close())
	}
	return "", nil, fmt.Errorf("the program is linked dynamically, and %s is not in the usual folders: build it with CGO_ENABLED=0", name)
}
