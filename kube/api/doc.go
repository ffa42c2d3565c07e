// Package api is what the objects of the scheduler layer are: Kubernetes' own v1
// types of a few kinds, how they are stored, read from YAML, defaulted and checked,
// and which of their fields mean something here.
//
// A Kind has a row in kinds.go: where its keys lie and how to make an empty one.
// Stored bytes are what Kubernetes stores: four bytes of magic, then a
// runtime.Unknown with type and raw protobuf; keys are Kubernetes' too, so that
// tools that read an etcd of Kubernetes read this one.
//
// The server calls Default, Validate, ValidateUpdate and Warnings for what it
// writes, and Patch; commands read files with ReadManifests and make their patches
// with Applied and ApplyPatch; who places pods counts with PodRequests.
//
// Always true: an object that passes Validate has no field that this layer would
// quietly not honour: each field of each kind is done, ignored with a warning, or
// refused (fieldrows.go, docs/kube-fields.md), and a test walks the types for one
// without a row. Nothing here panics or takes long, whatever a file, a patch or
// stored bytes hold: sizes, depths and the elements that are compared are bounded.
package api
