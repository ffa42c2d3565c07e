// Package objects is typed access to ClusterState: what schedulers, controllers,
// kubelets and commands read and write objects with.
//
//	c := objects.New(connection, "scheduler")
//	pod, err := objects.Get[*corev1.Pod](ctx, c, "shop", "web-1")
//	pods := objects.NewInformer[*corev1.Pod](c, objects.ListOptions{Fields: "spec.nodeName="}, log)
//
// A Client has no state. An Informer keeps the objects of one kind in memory and
// says what changes: it lists once, then watches, goes on where a broken watch
// ended, and lists anew where the server has forgotten what followed.
//
// Always true: objects that an Informer hands out are shared and never written to;
// who wants to change one makes a DeepCopy. Of any two states of an object that it
// tells, the later is the newer. Nothing survives the process.
package objects
