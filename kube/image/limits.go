package image

import "time"

// Limits of what strangers' images may cost the node.
const (
	// layerBytesMax is of one layer, unpacked: the largest known images (machine
	// learning) have layers of 20 GiB.
	layerBytesMax = 64 << 30
	// layerEntriesMax is of files in a layer: a million is a large distribution.
	layerEntriesMax = 4_000_000
	// layerNamesMax is of the names that are held while a layer is unpacked: a million
	// files take a third of it.
	layerNamesMax = 256 << 20
	nameCostBytes = 64 // Of each name beside its text.
	// layersMax is what overlayfs takes in one mount (500), with room for others.
	layersMax = 256
	// documentBytesMax is of a manifest, an index or a configuration: registries refuse above 4 MiB.
	documentBytesMax = 8 << 20
	// archiveEntriesMax is of files in an archive that is imported: three for each layer.
	archiveEntriesMax = 100_000
	// archiveBytesMax is of an archive with many images.
	archiveBytesMax = 256 << 30
	// archiveImagesMax is of images in an archive, and imageNamesMax of names of one image:
	// all of them are in the index, which is written whole.
	archiveImagesMax = 1000
	imageNamesMax    = 100
	// archiveNameBytesMax is of the name of a file in an archive, as file systems have it:
	// all names are held until the archive has been read.
	archiveNameBytesMax = 4096
	// referenceBytesMax is of a name as people write it: host, repository, tag and hash.
	referenceBytesMax = 1024
	// freeBytesMin stays free on the disk whatever is unpacked: the node needs it more.
	freeBytesMin = 256 << 20
	// nameBytesMax is of a repository's name, as registries have it.
	nameBytesMax = 255

	// downloadsMax is how many blobs come at the same time: more only take from each other.
	downloadsMax = 4
	// pullTries is how often a registry is asked that fails in a way that passes.
	pullTries    = 5
	pullDelayMin = 500 * time.Millisecond // Doubled each time.
	pullDelayMax = 10 * time.Second
	// stallMax is how long a download may bring nothing before it is begun anew.
	stallMax = time.Minute

	// YoungMin is how long an image stays after somebody asked for it, though no
	// container uses it: one may be about to.
	YoungMin = 5 * time.Minute
)
