// Package stage is what a process does between its making by a supervisor and the
// program of a container: it is this same binary, started as Argv0, and it becomes the
// program by execve in the end. It reads a Spec from descriptor 3, enters cgroups,
// makes or joins what the Spec says, gives up what the program may not have, and says
// on the same descriptor what failed. Silence and the end of it mean success.
//
// All of it runs on one thread, the first, which is locked and never unlocked:
// namespaces, capabilities, no_new_privs and filters are of threads.
//
// Only the standard library and x/sys are imported: see the comment of package supervisor.
package stage
