package api

const (
	// PatchBytesMax: more than the largest object has.
	PatchBytesMax = 3 << 20
	// patchOpsMax: a JSON patch of more steps replaces the object more cheaply.
	patchOpsMax = 10_000
	// copiedValuesMax bounds the copies that a JSON patch makes: copies of copies double.
	copiedValuesMax = 100_000
	// mergedElementsMax: each element of a merged list is looked for in the other.
	mergedElementsMax = 4_000

	// ManifestBytesMax bounds a file of manifests: it is held in memory.
	ManifestBytesMax = 16 << 20
	// documentBytesMax: more than the largest object has.
	documentBytesMax = 3 << 20
	// documentDepthMax: the types are a third as deep.
	documentDepthMax = 64
	// documentValuesMax bounds what aliases of aliases become.
	documentValuesMax = 500_000
	// problemsShownMax: who has more mends these first.
	problemsShownMax = 20
)
