package service

// Plane makes a plan true. Its methods are called one after the other.
type Plane interface {
	// Replace makes a plan all there is, whatever there was.
	Replace(Plan) error
	// Update changes some ports, at once where the plane can. After an error nobody knows
	// what there is; Replace mends it.
	Update(changes Plan) error
	// Stands reports whether what was made is still there: others may have removed it.
	Stands() (bool, error)
	// Close ends the plane. What the kernel does it goes on doing.
	Close() error
}
