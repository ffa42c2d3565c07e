// Package api is what the objects of the scheduler layer are: Kubernetes' own v1
// types of a few kinds, how they are stored, read from YAML, defaulted and checked,
// and which of their fields mean something here.
//
// A Kind has a row in kinds.go: where its keys lie and how to make an empty one.
// Stored bytes are what Kubernetes stores: four bytes of magic, then a
// runtime.Unknown with type and raw protobuf; keys are Kubernetes' too, so that
// tools that read an etcd of Kubernetes read this one.
//
// Always true: an object that passes Validate has no field that this layer would
// quietly not honour: each field of each kind is done, ignored with a warning, or
// refused (fields.go), and a test walks the types for one without a row.
package api
