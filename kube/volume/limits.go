package volume

const (
	// depthMax folders below each other are held open while a tree is removed; what is
	// deeper is moved up first. A container can nest as deep as it likes.
	depthMax = 64
	// usageDepthMax folders below each other are measured. What is deeper cannot be,
	// and counts as too much.
	usageDepthMax = 512
	// namesMax of a folder are read at once.
	namesMax = 1024
	// passesMax over a folder that does not become empty: somebody still writes.
	passesMax = 1 << 16
	// racesMax attempts to open what is being renamed meanwhile.
	racesMax = 128

	// secretBytesMax is the tmpfs of a volume with secrets, for each source: two states
	// of what an object can hold, which is about 1 MiB, and more.
	secretBytesMax = 8 << 20
	// messageBytesMax of the last words of a container, as in Kubernetes.
	messageBytesMax = 4096
	// mountsMax on one place are taken off at once.
	mountsMax = 64
)
