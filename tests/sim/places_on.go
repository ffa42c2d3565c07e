//go:build failpoints

package sim

import "github.com/holdfast-db/holdfast/internal/fail"

const placesNamed = true

// hookPlaces has the named places of the product count as moments at which the
// power may go.
func (w *World) hookPlaces() (unhook func()) {
	fail.SetHook(func(name string) {
		if m := w.running; m != nil && m.alive {
			m.disk.place(name)
		}
	})
	return func() { fail.SetHook(nil) }
}

// place is reached in the product's code, in builds that name its places.
func (d *disk) place(name string) {
	d.m.w.note(uint64(d.m.id), hashText(name))
	if d.dead || d.placesIn == 0 {
		return
	}
	if d.placesIn--; d.placesIn == 0 {
		d.powerOff("place " + name)
	}
}
