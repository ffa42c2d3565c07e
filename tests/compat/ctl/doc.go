// Package ctl types the same commands to the tools of etcd and to holdfastctl
// under their names, and compares what goes to standard output and the exit
// codes.
//
// The tools are etcdctl and etcdutl 3.7, built from their modules at the versions
// that go.mod pins, and Debian's etcdctl 3.4. Each tool has a member of holdfast
// of its own; these members advertise the same URLs, so that their IDs are equal,
// and the same commands in the same order have the same answers. A command that
// has several forms of output is given in each. What may differ stands in
// differences_test.go with its reason; a difference that is listed and not met is
// an error.
package ctl
