package recovery

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/vfs"
)

// journal says how far a recovery came. It lies in a folder beside the source's
// data directory, together with the copy that is worked on.
type journal struct {
	Stage stage `json:"stage"`
	Plan  *Plan `json:"plan"`
}

// stage is what was completed and is durable.
type stage string

const (
	stageNone   stage = ""
	stageStaged stage = "staged" // The plan is fixed; nothing was built, or not all.
	stageBuilt  stage = "built"  // All new directories are complete, and may have taken their names.
	stageDone   stage = "done"   // All have their names.
)

const (
	journalSuffix = ".recovery"
	journalName   = "JOURNAL"
	copyName      = "state"
	lockName      = "LOCK"
)

func journalDir(dataDir string) string { return dataDir + journalSuffix }

// readJournal returns an empty one where there is none.
func readJournal(fsys vfs.FS, dataDir string) (journal, error) {
	path := filepath.Join(journalDir(dataDir), journalName)
	there, err := vfs.Exists(fsys, path)
	if err != nil || !there {
		return journal{}, err
	}
	var j journal
	err = readDocument(fsys, path, kindJournal, &j)
	if err == nil && (j.Plan == nil || j.Stage != stageStaged && j.Stage != stageBuilt && j.Stage != stageDone) {
		err = fmt.Errorf("%s: stage %q: %w", path, j.Stage, ErrDocument)
	}
	return j, err
}

func (j *journal) write(fsys vfs.FS, dataDir string) error {
	data, err := encode(kindJournal, j)
	if err != nil {
		return err
	}
	return vfs.ReplaceFile(fsys, filepath.Join(journalDir(dataDir), journalName), data)
}

// stagedIn tells which plan is being applied to a data directory.
func stagedIn(fsys vfs.FS, dataDir string) (string, error) {
	j, err := readJournal(fsys, dataDir)
	if err != nil || j.Stage == stageNone || j.Stage == stageDone {
		return "", err
	}
	return j.Plan.ID, nil
}

// UnderWay returns the plan that is being applied to a data directory, which may
// be missing just now; nil when there is none.
func UnderWay(cfg Config, src Source) (*Plan, error) {
	j, err := readJournal(cfg.FS, src.DataDir)
	if err != nil || j.Stage == stageDone {
		return nil, err
	}
	return j.Plan, nil
}

// lockJournal keeps a second operator out.
func lockJournal(fsys vfs.FS, dataDir string) (io.Closer, error) {
	dir := journalDir(dataDir)
	if err := vfs.MakeFolder(fsys, dir); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("%s is in use by another process: %w", dir, ErrStaged)
	}
	return lock, err
}

// giveUp ends a recovery that has built nothing. Its journal is renamed aside.
func giveUp(fsys vfs.FS, p *Plan) error {
	path := filepath.Join(journalDir(p.Source.DataDir), journalName)
	if err := fsys.Rename(path, path+"-given-up-"+p.ID); err != nil {
		return err
	}
	return fsys.SyncDir(journalDir(p.Source.DataDir))
}

// Thaw lifts the freeze of a data directory, and gives up a recovery that has
// not built anything yet. One that has must be finished: some of the new
// directories may have their names already.
func Thaw(cfg Config, src Source) error {
	// A directory that is being recovered may have another name just now.
	under, err := vfs.Exists(cfg.FS, journalDir(src.DataDir))
	if err == nil && !under {
		err = withStopped(cfg, src, func(*datadir.Dir) error { return nil })
	}
	if err != nil {
		return err
	}
	lock, err := lockJournal(cfg.FS, src.DataDir)
	if err != nil {
		return err
	}
	return errors.Join(thaw(cfg, src), lock.Close())
}

func thaw(cfg Config, src Source) error {
	j, err := readJournal(cfg.FS, src.DataDir)
	if err != nil {
		return err
	}
	if j.Stage == stageBuilt {
		return fmt.Errorf("plan %s is half done: finish it with `holdfastctl recover apply`: %w", j.Plan.ID, ErrStaged)
	}
	if j.Stage == stageStaged {
		if err := giveUp(cfg.FS, j.Plan); err != nil {
			return err
		}
	}
	return withStopped(cfg, src, func(d *datadir.Dir) error { return d.Thaw() })
}
