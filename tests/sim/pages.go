package sim

import (
	"encoding/binary"
	"slices"
)

// bbolt places what one transaction writes in the order of a Go map, so that
// files of equal contents differ in which page is where, and how many are free.
// What follows from a seed may depend on the contents only: damage counts pages
// as a walk of the tree meets them.

const (
	pageBytes       = 4096
	pageHeaderBytes = 16

	branchPage = 1
	leafPage   = 2
)

// pagesInOrder are the pages of a base that mean something: the two meta pages,
// the tree of the newest, and the list of free pages. A file that bbolt would not
// read has only those that were found.
func pagesInOrder(data []byte) (pages []int) {
	var newest []byte
	for _, n := range []int{0, 1} {
		if meta := pageAt(data, n); meta != nil {
			pages = append(pages, n)
			if meta = meta[pageHeaderBytes:]; newest == nil || number(meta[48:]) > number(newest[48:]) {
				newest = meta
			}
		}
	}
	if newest == nil {
		return pages
	}
	seen := map[int]bool{0: true, 1: true}
	add := func(n int) []byte {
		page := pageAt(data, n)
		if page == nil || seen[n] {
			return nil
		}
		for i := range len(page) / pageBytes {
			seen[n+i] = true
			pages = append(pages, n+i)
		}
		return page
	}
	var walk func(n int)
	walk = func(n int) {
		page := add(n)
		if page == nil {
			return
		}
		kind, count := binary.LittleEndian.Uint16(page[8:]), int(binary.LittleEndian.Uint16(page[10:]))
		for i := range min(count, len(page)/pageHeaderBytes-1) {
			at := (i + 1) * 16
			element := page[at : at+16]
			switch kind {
			case branchPage:
				walk(number(element[8:]))
			case leafPage:
				if element[0]&1 == 0 { // A row, not a bucket.
					continue
				}
				value := at + int(binary.LittleEndian.Uint32(element[4:])) + int(binary.LittleEndian.Uint32(element[8:]))
				if value+8 <= len(page) {
					walk(number(page[value:])) // 0, seen, of one that lies in the page itself.
				}
			}
		}
	}
	walk(number(newest[16:]))
	add(number(newest[32:]))
	return pages
}

// pageAt is a page with all that it runs over into; nil outside of the file.
func pageAt(data []byte, n int) []byte {
	if n < 0 || n >= len(data)/pageBytes {
		return nil
	}
	page := data[n*pageBytes:]
	size := (int(binary.LittleEndian.Uint32(page[12:])) + 1) * pageBytes
	if size > len(page) {
		size = pageBytes
	}
	return page[:size]
}

func number(b []byte) int { return int(binary.LittleEndian.Uint64(b)) }

// inOrder changes a base as if its pages lay in the order of pagesInOrder.
func inOrder(data []byte, change func([]byte) []byte) []byte {
	pages := pagesInOrder(data)
	var gathered []byte
	for _, n := range pages {
		gathered = append(gathered, data[n*pageBytes:(n+1)*pageBytes]...)
	}
	changed := change(slices.Clone(gathered))
	if len(changed) < len(gathered) {
		return slices.Clone(data[:len(changed)])
	}
	data = slices.Clone(data)
	for i, n := range pages {
		copy(data[n*pageBytes:(n+1)*pageBytes], changed[i*pageBytes:])
	}
	return data
}
