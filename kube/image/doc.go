// Package image keeps the images that the containers of a node are made from.
//
// A Store is a folder: blobs under their hashes as a registry gives them, the layers
// of images unpacked as an overlay file system wants them (or, where nobody is root,
// whole roots with the layers laid one over the other), and an index that says which
// images there are. What images come from is a registry, an archive that was imported,
// or this program itself: builtin/demo and host/root need neither.
// The bytes: docs/format/images.md.
//
// Package pods asks for images by Resolve; the kubelet has what is not used collected.
// Engines that fetch images themselves pull what is here from Handler.
//
// Invariant: what has its name in the folder is whole and has been compared with its
// hash; what is being made is in tmp. An image is in the index only after all that it
// needs is durable.
// After a crash: tmp is emptied, images that miss something are forgotten, and what no
// image needs is removed by Open.
package image
