package main

import (
	"fmt"
	"strconv"
	"strings"
)

// splitWords takes a line apart as txn and interactive watch do: words between
// spaces, 'single quotes' around anything, and "double quotes" with the escapes
// of Go, so that "\x00" is a byte. A quote within a word is part of it.
func splitWords(line string) ([]string, error) {
	var words []string
	for {
		line = strings.TrimLeft(line, " \t\r\n\f\v")
		if line == "" {
			return words, nil
		}
		word, rest, err := nextWord(line)
		if err != nil {
			return nil, err
		}
		words, line = append(words, word), rest
	}
}

func nextWord(line string) (word, rest string, err error) {
	switch line[0] {
	case '\'':
		word, rest, found := strings.Cut(line[1:], "'")
		if !found {
			return "", "", fmt.Errorf("%s has no closing quote", line)
		}
		return word, rest, nil
	case '"':
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return "", "", fmt.Errorf("%s is not a quoted text: it needs a closing quote and known escapes", line)
		}
		word, err := strconv.Unquote(quoted)
		return word, line[len(quoted):], err
	}
	end := strings.IndexAny(line, " \t\r\n\f\v")
	if end < 0 {
		end = len(line)
	}
	return line[:end], line[end:], nil
}
