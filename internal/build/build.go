// Package build tells what this program was built from.
package build

import "runtime/debug"

const module = "github.com/holdfast-db/holdfast"

// Version is that of holdfast in this program: the module's, or the commit's where it
// was built in its repository.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return of(info)
}

func of(info *debug.BuildInfo) string {
	if info.Main.Path == module {
		return info.Main.Version
	}
	for _, d := range info.Deps { // A program that embeds it.
		if d.Path != module {
			continue
		}
		if d.Replace != nil && d.Replace.Version != "" {
			return d.Replace.Version
		}
		return d.Version
	}
	return "unknown"
}
