package watch

import "time"

const (
	// windowRevisionsMax bounds one answer: clients that resume work through
	// no more than that many revisions at once.
	windowRevisionsMax = 1000
	// windowBytesMax bounds what one turn of the pump or of a catch-up reads, and
	// so an answer. A revision larger than that is taken whole (I-8).
	windowBytesMax = 1 << 20

	// sharedBytesMax is up to which size an answer is encoded once for all streams,
	// rather than once each around events that lie where they are.
	sharedBytesMax = 16 << 10

	// StreamBytesDefault is what may wait for one slow client. Beyond it the
	// stream reads history again instead, once it has taken what waits.
	StreamBytesDefault = 4 << 20

	// BytesDefault is what may wait for all clients of a member together, and
	// 1/shareMin of what is left of it for one: 60 that do not read have their 4 MiB.
	BytesDefault = 256 << 20
	shareMin     = 4

	// AnswersMax beside events may wait in one stream before its owner should take no
	// more requests: more than any client asks before it reads, and half a MiB.
	AnswersMax = 4096

	// What the key indexes cost a watcher, in bytes of history that could be
	// scanned in the same time: to look at a key or version, and to read a value
	// by its place. Measured with BenchmarkCatchUp.
	visitCostBytes  = 128
	changeCostBytes = 2 << 10
	// A change whose order within its revision only history tells costs a scan
	// from the last place where one may begin.
	orderCostBytes = 64 << 10
	// Changes that are held at a time: a few MiB.
	changesMax = 32 << 10

	// The catch-up may work so long at once; beyond that it rests as long as it
	// works, so that it takes half of a core and half of a disk.
	catchUpBurst = 100 * time.Millisecond
)
