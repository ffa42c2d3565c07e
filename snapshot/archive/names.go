package archive

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/holdfast-db/holdfast/internal/ident"
)

// Names of objects, below the prefix of the store:
//
//	<cluster>/META.json
//	<cluster>/owner.json
//	<cluster>/ceiling/<revision>.json
//	<cluster>/epoch/<number>.json
//	<cluster>/tl/<timeline>/HISTORY.json
//	<cluster>/tl/<timeline>/log/<first>-<last>-<digest>.hist
//	<cluster>/tl/<timeline>/base/<index>-<revision>/part-<number>-<hash>
//	<cluster>/tl/<timeline>/base/<index>-<revision>/MANIFEST.json
//	<cluster>/verify/<time>.json
//	<cluster>/trash/<time>/LIST.json
//
// Numbers have as many digits as the largest, so that a list is in their order.
const (
	metaName     = "META.json"
	ownerName    = "owner.json"
	historyName  = "HISTORY.json"
	manifestName = "MANIFEST.json"

	timelineFolder = "tl/"
	logFolder      = "log/"
	baseFolder     = "base/"
	ceilingFolder  = "ceiling/"
	epochFolder    = "epoch/"
	verifyFolder   = "verify/"
	trashFolder    = "trash/"

	segmentSuffix = ".hist"
	jsonSuffix    = ".json"
	partPrefix    = "part-"
)

func timelinePath(t ident.Timeline) string { return fmt.Sprintf("%s%020d/", timelineFolder, t) }

// segmentName is what the name of a segment says.
type segmentName struct {
	First, Last ident.Index // First is the index after the record before.
	Digest      Digest      // After the last record.
}

func (n segmentName) String() string {
	return fmt.Sprintf("%020d-%020d-%s%s", n.First, n.Last, n.Digest, segmentSuffix)
}

func parseSegmentName(text string) (n segmentName, ok bool) {
	body, ok := strings.CutSuffix(text, segmentSuffix)
	parts := strings.Split(body, "-")
	if !ok || len(parts) != 3 || n.Digest.UnmarshalText([]byte(parts[2])) != nil {
		return n, false
	}
	first, err1 := strconv.ParseUint(parts[0], 10, 64)
	last, err2 := strconv.ParseUint(parts[1], 10, 64)
	n.First, n.Last = ident.Index(first), ident.Index(last)
	return n, cmp.Or(err1, err2) == nil && n.First > 0 && n.First <= n.Last && n.String() == text
}

// baseName is what the name of a base's folder says.
type baseName struct {
	Index    ident.Index // Of the last record in it.
	Revision ident.Revision
}

func (n baseName) String() string { return fmt.Sprintf("%020d-%020d", n.Index, n.Revision) }

func parseBaseName(text string) (n baseName, ok bool) {
	index, revision, ok := strings.Cut(text, "-")
	i, err1 := strconv.ParseUint(index, 10, 64)
	r, err2 := strconv.ParseInt(revision, 10, 64)
	n.Index, n.Revision = ident.Index(i), ident.Revision(r)
	return n, ok && cmp.Or(err1, err2) == nil && n.Revision >= 0 && n.String() == text
}

func partName(number int, hash [16]byte) string {
	return fmt.Sprintf("%s%05d-%x", partPrefix, number, hash)
}

func ceilingName(rev ident.Revision) string {
	return fmt.Sprintf("%s%020d%s", ceilingFolder, rev, jsonSuffix)
}

// located is a name taken apart, relative to the cluster's folder.
type located struct {
	timeline ident.Timeline
	kind     locatedKind
	segment  segmentName
	base     baseName
	ceiling  ident.Revision
	epoch    ident.Timeline
	rest     string // Of a base: the name within its folder. Of other kinds: within theirs.
}

type locatedKind int

const (
	foreign locatedKind = iota // Not ours: named in listings, never touched.
	ofCluster
	ofHistory
	ofSegment
	ofManifest
	ofPart
	ofCeiling
	ofEpoch
	ofVerify
	ofTrash
)

func locate(name string) (l located) {
	switch {
	case name == metaName || name == ownerName:
		return located{kind: ofCluster, rest: name}
	case strings.HasPrefix(name, ceilingFolder):
		return locateCeiling(name)
	case strings.HasPrefix(name, epochFolder):
		if n, ok := parseEpochName(name); ok {
			return located{kind: ofEpoch, epoch: n}
		}
		return located{}
	case strings.HasPrefix(name, verifyFolder):
		return located{kind: ofVerify, rest: name[len(verifyFolder):]}
	case strings.HasPrefix(name, trashFolder):
		return located{kind: ofTrash, rest: name[len(trashFolder):]}
	}
	rest, ok := strings.CutPrefix(name, timelineFolder)
	number, rest, ok2 := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || !ok2 || err != nil || timelinePath(ident.Timeline(n)) != timelineFolder+number+"/" {
		return located{}
	}
	l = locateWithin(rest)
	l.timeline = ident.Timeline(n)
	return l
}

func locateCeiling(name string) located {
	text, _ := strings.CutSuffix(name[len(ceilingFolder):], jsonSuffix)
	rev, err := strconv.ParseInt(text, 10, 64)
	if err != nil || rev < 0 || ceilingName(ident.Revision(rev)) != name {
		return located{}
	}
	return located{kind: ofCeiling, ceiling: ident.Revision(rev)}
}

// locateWithin takes a name within a timeline apart.
func locateWithin(rest string) (l located) {
	if rest == historyName {
		return located{kind: ofHistory}
	}
	if text, ok := strings.CutPrefix(rest, logFolder); ok {
		if l.segment, ok = parseSegmentName(text); ok {
			l.kind = ofSegment
		}
		return l
	}
	text, ok := strings.CutPrefix(rest, baseFolder)
	folder, file, _ := strings.Cut(text, "/")
	base, ok2 := parseBaseName(folder)
	switch {
	case !ok || !ok2:
		return located{}
	case file == manifestName:
		return located{kind: ofManifest, base: base, rest: file}
	case strings.HasPrefix(file, partPrefix):
		return located{kind: ofPart, base: base, rest: file}
	}
	return located{}
}
