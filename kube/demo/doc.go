// Package demo is what the image builtin/demo runs: a server that shows which pod
// answers, and that burns processor time, eats memory, turns unhealthy, starts and
// stops slowly or ends when it is told to. So load balancing, scaling, probes, limits
// and rollouts can be tried without fetching anything.
//
// Programs that offer it give it what follows the word demo on their command line,
// before they look at anything else.
//
// Where pods share the node's network each needs an address of its own, or the second
// copy on a node would find the port taken: an engine without network namespaces gives
// each pod a loopback address and names it in the variable HOLDFAST_POD_IP, and the
// server listens there. A port below 1024 that may not be had becomes the one 8000
// above.
package demo
