// Package clients drives holdfast with etcd's own Go client: every call of this
// version's services, watches in all their forms, leases, membership,
// maintenance, the concurrency package, and a member killed meanwhile. Members
// are processes with TLS on all ports. What holds on a cluster of one must
// hold on a cluster of three, so most tests run on both.
package clients
