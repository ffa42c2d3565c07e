//go:build linux

package supervisor

import _ "unsafe" // For go:linkname.

// freeOSMemory is debug.FreeOSMemory. Package runtime/debug has nothing to initialise, but
// comes so late in the order that a supervisor which imports it begins life with the memory
// of a hundred packages that it never calls.
//
//go:linkname freeOSMemory runtime/debug.freeOSMemory
func freeOSMemory()
