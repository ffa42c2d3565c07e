package crash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
)

const pageBytes = 4096

// pageImage is what a file of base holds after a crash in a commit.
type pageImage struct {
	what    string
	content []byte
}

// commitImages are the ways in which a crash may leave a commit of bbolt: it
// grows the file, writes changed pages in any order, syncs, then writes the
// meta page and syncs.
func commitImages(before, after []byte, rnd *rand.Rand) []pageImage {
	old := slices.Concat(before, make([]byte, max(0, len(after)-len(before))))[:max(len(before), len(after))]
	var changed []int
	for at := 2 * pageBytes; at+pageBytes <= len(after); at += pageBytes {
		if !bytes.Equal(old[at:at+pageBytes], after[at:at+pageBytes]) {
			changed = append(changed, at)
		}
	}
	var all []pageImage
	add := func(what string, build func(b []byte)) {
		b := slices.Clone(old)
		build(b)
		all = append(all, pageImage{what, b})
	}
	page := func(b []byte, at int) { copy(b[at:at+pageBytes], after[at:]) }
	add("no page", func([]byte) {})
	for _, at := range changed {
		add(fmt.Sprintf("page %d alone", at/pageBytes), func(b []byte) { page(b, at) })
		add(fmt.Sprintf("all but page %d", at/pageBytes), func(b []byte) {
			for _, other := range changed {
				if other != at {
					page(b, other)
				}
			}
		})
		add(fmt.Sprintf("page %d torn", at/pageBytes), func(b []byte) {
			for sector := at; sector < at+pageBytes; sector += 512 {
				if rnd.IntN(2) == 0 {
					copy(b[sector:sector+512], after[sector:])
				}
			}
		})
	}
	for range 3 {
		add("some pages", func(b []byte) {
			for _, at := range changed {
				if rnd.IntN(2) == 0 {
					page(b, at)
				}
			}
		})
	}
	add("all pages, no meta page", func(b []byte) {
		for _, at := range changed {
			page(b, at)
		}
	})
	for range 3 {
		cut := 16 + rnd.IntN(64) // Within the header and what is checked of a meta page.
		add(fmt.Sprintf("all pages, meta page torn at %d", cut), func(b []byte) {
			copy(b[2*pageBytes:], after[2*pageBytes:])
			for at := 0; at < 2*pageBytes; at += pageBytes {
				copy(b[at:at+cut], after[at:])
			}
		})
	}
	return all
}

// olderMeta are files whose newest meta page cannot be read, so that bbolt goes
// back by one transaction. The log is kept for that. A file that was just made
// has nothing to go back to.
func olderMeta(bases map[string][]byte) map[string][]byte {
	const txid = 16 + 48 // A header, then the transaction behind 48 bytes of meta.
	all := map[string][]byte{}
	for id, b := range bases {
		if len(b) < 2*pageBytes {
			continue
		}
		newest, other := 0, pageBytes
		if binary.LittleEndian.Uint64(b[txid:]) < binary.LittleEndian.Uint64(b[pageBytes+txid:]) {
			newest, other = other, newest
		}
		if binary.LittleEndian.Uint64(b[other+txid:]) < firstCheckpoint {
			continue
		}
		all[id] = slices.Clone(b)
		all[id][newest+txid+1] ^= 1
	}
	return all
}

const firstCheckpoint = 3 // The transactions before are those that make the file.
