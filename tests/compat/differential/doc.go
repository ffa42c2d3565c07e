// Package differential sends the same requests to holdfast and to etcd and
// wants the same answers.
//
// A pair is a member of ours, as a process, and an etcd of the same
// configuration, inside the test. Requests go to both by plain gRPC without
// retries, made from descriptors of etcd's own messages, and both answers are
// compared whole: code and text of an error, every field of a message, fields
// that nobody knows. IDs that each side draws for itself (cluster, member,
// leases) are given equal names on both sides first, see names; what depends on
// time alone is in the table of unsteady fields, which etcd against etcd needs
// as well (flag -self tries that). Everything else that may differ is a row of
// docs/differences.md with a matcher of the same name in tolerate_test.go.
//
// Three kinds of tests use pairs: random sequences, of which each is repeated
// from its seed; concurrent clients, each with keys of its own; and scenes for
// what no random request reaches, such as a lost quorum or a learner. All count
// what they sent and got: each RPC, each field, each value of an enumeration,
// each error text. TestMain prints the table, and a zero in it fails.
package differential
