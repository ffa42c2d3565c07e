package api

import (
	"strings"
	"unicode/utf8"
)

// Clip is the beginning of a text, of at most so many bytes, and what is no text in it
// replaced: for messages that come from containers, registries and runtimes.
func Clip(text string, bytesMax int) string {
	if len(text) > bytesMax {
		end := bytesMax
		for end > max(0, bytesMax-utf8.UTFMax) && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// ClipName is the beginning of a name that others are made of, of at most so many bytes. It
// is a name itself: what ends in a dash or a dot is none, nor what goes on after it with a dot.
func ClipName(name string, bytesMax int) string {
	if len(name) > bytesMax {
		name = strings.TrimRight(name[:bytesMax], "-.")
	}
	return name
}
