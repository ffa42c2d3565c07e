// Package kubernetes runs the storage layer of the Kubernetes API server against
// our processes: the code that every object of a cluster passes through, and the
// tests of its contract that k8s.io/apiserver publishes for its storages.
package kubernetes
