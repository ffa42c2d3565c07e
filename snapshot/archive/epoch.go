package archive

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

// Epoch is the content of epoch/<number>.json: that the cluster whose folder it
// lies in was given up, and for which other. Its members, where they are told to
// look, acknowledge nothing once they have seen one, or have not looked for
// EpochTTL. It is put if absent: of two operators one wins.
type Epoch struct {
	Format    int            `json:"format"`
	Number    ident.Timeline `json:"number"`    // Timeline of the cluster that goes on.
	Cluster   UUID           `json:"cluster"`   // The one that is given up.
	Successor string         `json:"successor"` // By which peers and clients know the other.
	Plan      string         `json:"plan"`
	By        string         `json:"by"`   // For people, as Made is.
	Made      string         `json:"made"` // By the clock of who made it.
	// Fence says whether the member that archived last looked for epochs: without
	// that nothing keeps the old side from answering.
	Fence string `json:"fence"`
}

// What Epoch.Fence says.
const (
	FenceOn      = "on"
	FenceOff     = "off"
	FenceUnknown = "unknown" // Nobody has archived.
)

// EpochTTL is how long a member may acknowledge after it began to look for an
// epoch and found none. A second of the ten that are promised is left for what
// is on its way.
const EpochTTL = 9 * time.Second

// ErrEpochTaken means that another recovery was first.
var ErrEpochTaken = errors.New("another operator has recovered this cluster")

func epochName(n ident.Timeline) string {
	return fmt.Sprintf("%s%020d%s", epochFolder, n, jsonSuffix)
}

func parseEpochName(name string) (ident.Timeline, bool) {
	text, _ := strings.CutSuffix(strings.TrimPrefix(name, epochFolder), jsonSuffix)
	n, err := strconv.ParseUint(text, 10, 64)
	return ident.Timeline(n), err == nil && n > 0 && epochName(ident.Timeline(n)) == name
}

// NewestEpoch is the highest number of an epoch, 0 where there is none. It also
// makes sure that the archive is there: a mount that is gone is an empty folder.
func (a *Archive) NewestEpoch(ctx context.Context) (newest ident.Timeline, err error) {
	prefix := a.path(epochFolder)
	err = a.store.List(ctx, prefix, "", func(o blobstore.Object) error {
		if n, ok := parseEpochName(o.Name[len(a.path("")):]); ok {
			newest = max(newest, n)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("list %s%s: %w", a.store, prefix, err)
	}
	if _, _, err := a.store.Get(ctx, a.path(metaName)); err != nil {
		return 0, fmt.Errorf("object %s: %w", a.path(metaName), err)
	}
	return newest, nil
}

// Epoch reads one. blobstore.ErrNotFound: there is none of that number.
func (a *Archive) Epoch(ctx context.Context, n ident.Timeline) (*Epoch, error) {
	name := epochName(n)
	data, _, err := a.store.Get(ctx, a.path(name))
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	e := &Epoch{}
	if err := decodeText(name, data, e); err != nil {
		return nil, err
	}
	if e.Cluster != a.cluster || e.Number != n {
		return nil, fmt.Errorf("object %s is epoch %d of cluster %s: %w", name, e.Number, e.Cluster, ErrForeign)
	}
	return e, nil
}

// TakeEpoch writes an epoch. One that is there already is as good if it is of the
// same plan with the same successor: ours, of a try that was cut off. A later one
// has superseded it: then the cluster goes on by that.
func (a *Archive) TakeEpoch(ctx context.Context, e Epoch) (*Epoch, error) {
	e.Format, e.Cluster = FormatVersion, a.cluster
	var err error
	if e.Fence, err = a.fenceOfOwner(ctx); err != nil {
		return nil, fmt.Errorf("take epoch %d: %w", e.Number, err)
	}
	text, err := encodeText(e)
	if err != nil {
		return nil, err
	}
	_, err = a.store.Put(ctx, a.path(epochName(e.Number)), text, blobstore.Condition{Absent: true})
	if err == nil {
		if err := a.IsNewest(ctx, e.Number); err != nil {
			return nil, err
		}
		return &e, nil
	}
	if !errors.Is(err, blobstore.ErrCondition) {
		return nil, fmt.Errorf("take epoch %d: %w", e.Number, err)
	}
	there, err := a.Epoch(ctx, e.Number)
	if err != nil {
		return nil, fmt.Errorf("take epoch %d: %w", e.Number, err)
	}
	if there.Plan != e.Plan || there.Successor != e.Successor {
		return nil, fmt.Errorf("epoch %d was taken at %s by %s, with plan %s, for cluster %s: %w", e.Number, there.Made, there.By, there.Plan, there.Successor, ErrEpochTaken)
	}
	if err := a.IsNewest(ctx, e.Number); err != nil {
		return nil, err
	}
	return there, nil
}

// IsNewest fails with ErrEpochTaken where an epoch has been superseded.
func (a *Archive) IsNewest(ctx context.Context, n ident.Timeline) error {
	newest, err := a.NewestEpoch(ctx)
	if err == nil && newest > n {
		err = fmt.Errorf("epoch %d was superseded by %d: %w", n, newest, ErrEpochTaken)
	}
	return err
}

// fenceOfOwner tells whether the member that archived last looks for epochs.
func (a *Archive) fenceOfOwner(ctx context.Context) (string, error) {
	data, _, err := a.store.Get(ctx, a.path(ownerName))
	if errors.Is(err, blobstore.ErrNotFound) {
		return FenceUnknown, nil
	}
	owner := ownerLease{}
	if err == nil {
		err = decodeText(ownerName, data, &owner)
	}
	if err != nil {
		return "", fmt.Errorf("object %s: %w", ownerName, err)
	}
	if owner.Fenced {
		return FenceOn, nil
	}
	return FenceOff, nil
}
