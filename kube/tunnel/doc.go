// Package tunnel lets people reach the containers of a node that nobody can dial: a
// kubelet dials out to each server, and keeps one stream open to each.
//
// A user's stream (Connect) asks a server for something of a node. The server tells the
// node on its tunnel to open a session: a second stream over the same connection, with
// a number and a secret that are good for one time. What the user sends and what the
// node answers are frames of these two streams; the server moves them from one to the
// other. gRPC keeps the streams apart and slows down who sends faster than the other
// side reads, so nothing is multiplexed or windowed here.
//
// Three sides, one file each: hub.go and session.go (the server), serve.go and run.go
// (the node), connect.go (the user). Who may ask for what decides package state, before
// a hub hears of it.
//
// Invariant: a session lasts no longer than either of its streams. What a node does for
// it ends with its context.
// Nothing here survives the process. Nodes come back by themselves; sessions do not.
package tunnel
