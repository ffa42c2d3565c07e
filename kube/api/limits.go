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
)
