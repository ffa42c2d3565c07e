// Package crash takes the storage of a whole member through power cuts, failing
// calls and damage, and compares what comes back with a model.
//
// A workload is a scripted life, drawn from a seed: the Raft log, the state
// machine on its store, checkpoints, merges, compactions, snapshots received
// and installed, restores, the data directory, all of it the product's own
// code. Files lie in memory that can lose power (package vfstest); base, which
// wants a real file, is captured around each of its commits.
//
// The walk makes crash images before every call that changes a file, and of
// every commit of base, opens each with the product's own way of starting,
// replays the log and compares: every acknowledged entry is there, positions,
// digests and revisions are equal, nothing is invented, the member goes on,
// and a second crash while it recovers leaves the same. Other tests let every
// call fail in turn, cut and zero the tails of logs, and turn over single bits
// at rest.
//
// A table at the end says what was done; a count of zero in it fails the run.
// Flags: -workload, -seed, -boundary, -image replay one image; -images says
// how many at each boundary. -long means all of them, every failing call, every
// byte of a tail, and some thousand flips for each kind of file: it recovers
// from each situation once, however many images lead to it, tells how far it is
// after each workload, and goes through every n-th of them with -shard=i/n.
package crash
