package archive

import "sync/atomic"

// Metrics of a writer since it began.
type Metrics struct {
	Owner         atomic.Bool  // This member ships.
	Archived      atomic.Int64 // Index up to which everything is in the archive.
	BehindBytes   atomic.Int64 // History that waits.
	Segments      atomic.Int64 // Shipped.
	SegmentBytes  atomic.Int64
	Bases         atomic.Int64
	BaseBytes     atomic.Int64
	BaseUnix      atomic.Int64 // When the newest base was complete, seconds since 1970.
	Failures      atomic.Int64 // Rounds that ended with an error and were begun again.
	Gaps          atomic.Int64 // Stretches of history that were given up.
	Alarms        atomic.Int64
	CeilingsUnmet atomic.Int64 // Reservations of revisions that failed.
}

// Metrics of the writer. They move on.
func (w *Writer) Metrics() *Metrics { return &w.metrics }
