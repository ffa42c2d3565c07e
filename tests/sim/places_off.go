//go:build !failpoints

package sim

const placesNamed = false

// hookPlaces does nothing: the named places are only there with the build tag
// failpoints.
func (w *World) hookPlaces() (unhook func()) { return func() {} }
