// Package cluster is the part of holdfastctl that shows and changes the objects of a
// cluster: get, describe, apply, create, delete, scale, rollout and so on, in
// kubectl's words, flags and columns; and what kubectl has not: why and tree.
//
// Run executes one command line; the program around it decides with Means whether a
// get is meant for objects or for keys of the store. One file holds one command.
// What a command prints for people goes through a table (columns.go) or a
// description (describe.go); -o json and yaml print objects as they are.
//
// It keeps nothing between runs but the file of contexts (package kube/context).
//
// Always true: nothing that it prints for people holds the value of a Secret, and the
// annotation in which apply keeps a manifest is printed with -o json and yaml alone,
// never that of a Secret. A command that fails ends with exit code 1, and its last
// line on standard error names the object or the line, and the mend.
package cluster
