package probe

import "time"

const (
	// readBytesMax is read of what a probe answers; the rest is nobody's concern.
	readBytesMax = 10 << 10
	// headerBytesMax bounds the header of an answer: what runs in a pod is not trusted.
	headerBytesMax = 64 << 10
	// messageBytesMax of an event, as in Kubernetes.
	messageBytesMax = 1 << 10
	// redirectsMax as in Kubernetes.
	redirectsMax = 10
	// periodMin stands for what an object that was never defaulted does not say.
	periodMin = time.Second
	// equalEvents failures with one text make one event after the first.
	equalEvents = 10
)
