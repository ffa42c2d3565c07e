package blobstore

import (
	"fmt"
	"strings"
)

// Limits of names: what every file system and, behind a prefix of its own, every
// object store takes.
const (
	NameBytesMax = 512
	PartBytesMax = 200
)

// CheckName says what is wrong with the name of an object. Names that are
// refused cannot leave the store: ".." is no part, and no part is empty.
func CheckName(name string) error {
	if len(name) > NameBytesMax {
		return fmt.Errorf("object name %.40q… has %d bytes, at most %d are allowed", name, len(name), NameBytesMax)
	}
	for part := range strings.SplitSeq(name, "/") {
		if !validPart(part) {
			return fmt.Errorf("object name %q: part %q is not made of 1 to %d letters, digits and ._-=, or is a dot or two", name, part, PartBytesMax)
		}
	}
	return nil
}

func validPart(part string) bool {
	if part == "" || part == "." || part == ".." || len(part) > PartBytesMax {
		return false
	}
	for i := range len(part) {
		c := part[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && strings.IndexByte("._-=", c) < 0 {
			return false
		}
	}
	return true
}

// CheckPut says what is wrong with the arguments of Put. Drivers begin with it.
func CheckPut(name string, data []byte, c Condition) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if len(data) > MaxObject {
		return fmt.Errorf("object %s has %d bytes, at most %d are written in one request", name, len(data), MaxObject)
	}
	if c.Absent && c.Match != "" {
		return fmt.Errorf("object %s shall be absent and match a tag: choose one condition", name)
	}
	return nil
}

// CheckRange says what is wrong with the arguments of GetRange.
func CheckRange(name string, offset, length int64) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if offset < 0 || length < 0 {
		return fmt.Errorf("object %s: no range of %d bytes begins at %d", name, length, offset)
	}
	return nil
}
