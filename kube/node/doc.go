// Package node makes a machine a node: it puts together what a kubelet needs to run
// real containers (an engine, images, volumes, a network, a way to the containers) and
// runs it. The programs kubelet and controlplane dev are both thin layers over it.
//
// A node keeps everything in one folder:
//
//	pods/UID/{volumes,logs,engine,…}   what belongs to a pod
//	images/                            those that were fetched or imported
//	network/                           the addresses of pods
//	checkpoints/                       the pods as the kubelet knew them
//
// The process may end at any time: containers go on, and the next one finds them.
package node
