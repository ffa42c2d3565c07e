// Package pods turns a pod into calls of an engine: volumes, images, what containers
// share, then one container after the other as the kubelet asks for them, with their
// hooks and probes; and all of it back in the other order. It implements
// kubelet.Runtime and kubelet.Meter.
//
// What the kubelet asks for is noted and done by a worker of the pod, a goroutine that
// lives as long as there is something to do. So calls of an engine about one pod come
// one after the other. A container is stopped by a goroutine of its own: several have
// the whole grace at the same time, and one that fails its liveness probe holds up none.
//
// What became of containers is asked of the engine (List) when it says that something
// did, and now and then. Nothing here survives the process: Adopt compares what the
// engine has with the pods of the node, goes on with what belongs to them and removes
// the rest.
//
// Always true: what is told of a container is of its last attempt, and attempts only
// grow. A pod exists until its processes have ended, then its volumes are gone; its
// folder with the logs stays until Forget.
package pods
