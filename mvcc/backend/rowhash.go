package backend

import (
	"context"
	"crypto/sha256"
	"encoding/binary"

	"github.com/holdfast-db/holdfast/internal/task"
)

// rowHasher adds up the hash of many rows beside whoever gives them: it takes
// longer than all else that becomes of them. A few are hashed on the spot.
type rowHasher struct {
	batch []byte // Rows as hashRow takes them, each with its length before.
	sum   Sum    // Of those that were hashed on the spot.

	tasks *task.Group
	full  chan []byte
	empty chan []byte
	rest  Sum // Of the others. Owned by the goroutine until it has ended.
}

// add takes a copy of a row.
func (h *rowHasher) add(key, payload []byte) {
	size := 2*4 + len(key) + len(payload)
	if len(h.batch) > 0 && len(h.batch)+size > hashBatchBytes {
		h.hand()
	}
	h.batch = binary.LittleEndian.AppendUint32(h.batch, uint32(size-4))
	h.batch = binary.BigEndian.AppendUint32(h.batch, uint32(len(key)))
	h.batch = append(append(h.batch, key...), payload...)
}

// hand gives a batch to the goroutine, and takes an empty one.
func (h *rowHasher) hand() {
	if h.tasks == nil {
		h.tasks = task.New(context.Background())
		h.full, h.empty = make(chan []byte, hashBatches), make(chan []byte, hashBatches)
		for range hashBatches - 1 {
			h.empty <- nil
		}
		h.tasks.Go("hash rows", func(context.Context) error {
			for batch := range h.full {
				addRows(&h.rest, batch)
				h.empty <- batch[:0]
			}
			return nil
		})
	}
	h.full <- h.batch
	if h.batch = <-h.empty; h.batch == nil {
		h.batch = make([]byte, 0, hashBatchBytes)
	}
}

func addRows(sum *Sum, batch []byte) {
	for len(batch) > 0 {
		end := 4 + binary.LittleEndian.Uint32(batch)
		sum.add(sha256.Sum256(batch[4:end]))
		batch = batch[end:]
	}
}

// finish returns the hash of all that were added.
func (h *rowHasher) finish() Sum {
	addRows(&h.sum, h.batch)
	h.batch = h.batch[:0]
	if h.tasks != nil {
		close(h.full)
		_ = h.tasks.Wait() // It cannot fail.
		h.tasks = nil
		h.sum.add(h.rest)
	}
	return h.sum
}
