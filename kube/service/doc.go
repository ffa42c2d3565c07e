// Package service makes connections to services arrive at their endpoints.
//
// Make turns a Service and its EndpointSlices into Ports: where clients connect, which
// endpoints get new connections, which keep those that they have. Assign spreads the
// endpoints over slots; a new connection takes one slot at random. Both are pure. A
// Plane brings a plan about: Table in the kernel, with one rule and one map of slots
// for each port in a table of nftables, by netlink alone; Userspace without root, with
// listeners on loopback; Beside is a Table with a Userspace for the node's loopback. The
// Proxy follows the objects, and gives the Plane what changes.
//
// Always true: an endpoint that goes moves only its own slots, and one that comes takes
// only its share. Table changes one batch of services in one transaction, so that no
// connection meets a half of it. An endpoint that is on its way out gets no new
// connections unless there is no other, and keeps those that it has; flows of UDP to an
// endpoint that is gone are cut, since nobody else would end them.
//
// After a crash the table in the kernel goes on. The next Proxy replaces it as a whole,
// in one transaction, once it knows all services. Connections go on, since the kernel
// remembers where each went, and which client sticks to which endpoint is taken over.
// What userspace carries ends with the process.
package service
