package tidy

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

var (
	linkTo    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`^#+ +(.*)$`)
	notInSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	pageNamed = regexp.MustCompile(`\bdocs/[\w/-]+\.md\b`)
)

// checkLinks follows the links of documents to files, folders and headings, and looks
// up the pages of docs that any other text names. The network is not asked.
func checkLinks(t *Tree, found report) {
	folders := map[string]bool{}
	for _, p := range t.paths {
		for dir := path.Dir(p); !folders[dir]; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	for _, p := range t.paths {
		for i, line := range strings.Split(t.texts[p], "\n") {
			if !strings.HasSuffix(p, ".md") {
				for _, name := range pageNamed.FindAllString(line, -1) {
					if _, ok := t.texts[name]; !ok && !strings.HasPrefix(p, "internal/tidy/") {
						found(p, i+1, "no "+name)
					}
				}
				continue
			}
			for _, m := range linkTo.FindAllStringSubmatch(line, -1) {
				if !strings.Contains(m[1], "://") {
					t.checkLink(p, m[1], folders, func(what string) { found(p, i+1, what) })
				}
			}
		}
	}
}

func (t *Tree) checkLink(from, link string, folders map[string]bool, found func(what string)) {
	name, anchor, _ := strings.Cut(link, "#")
	to := from
	if name != "" {
		to = path.Join(path.Dir(from), name)
	}
	text, ok := t.texts[to]
	switch {
	case !ok && !folders[to]:
		found("no " + to)
	case anchor != "" && !anchors(text)[anchor]:
		found(fmt.Sprintf("no heading %q in %s", anchor, to))
	}
}

// anchors are what headings of a document are called in links. What stands in a block
// of code is none.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if m := heading.FindStringSubmatch(strings.TrimSpace(line)); m != nil && !code {
			slug := strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
			for name, n := slug, 1; ; n++ {
				if !names[name] {
					names[name] = true
					break
				}
				name = fmt.Sprintf("%s-%d", slug, n)
			}
		}
	}
	return names
}
