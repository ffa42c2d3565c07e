// Package dns answers pods that ask for names.
//
// Names of the cluster it answers itself, from the services and their endpoints: by the
// rules that clients of Kubernetes know. All else it passes on to the resolvers of the
// node, and remembers for a while what they said. It listens at one address of the node,
// with UDP and TCP; ForPod says what a pod's resolv.conf has to be so that it is asked.
//
// Zone is what the cluster's names are, a pure function of the objects; Server is
// everything about packets.
//
// Always true: until all services are known nothing is said not to be there; an answer
// is no longer than who asked can take; a question is with the resolvers once at a time,
// and for a few seconds at most.
package dns
