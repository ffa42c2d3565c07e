// Package environ makes the variables that a container begins with, and replaces
// $(NAME) by them in its command, arguments and sub-paths.
//
// The values of fields of a pod and of resources are made here too for the files of
// downward volumes, so that both say the same.
//
// Always true: what is asked for and not there is an error that names it, and wraps
// ErrMissing, unless the pod calls it optional. No error holds a value.
// Nothing is kept.
package environ
