package linear

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/holdfast-db/holdfast/tests/check"
)

// keep writes what is needed to understand a failed run: the history, a page
// that shows it, and the logs of all members.
func (r *result) keep(dir, runDir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	errs := []error{
		writeFile(filepath.Join(dir, "history.jsonl"), func(w io.Writer) error { return check.Write(w, r.History) }),
		writeFile(filepath.Join(dir, "report.html"), r.Report.HTML),
	}
	logs, err := filepath.Glob(filepath.Join(runDir, "*.log"))
	for _, name := range logs {
		errs = append(errs, writeFile(filepath.Join(dir, filepath.Base(name)), func(w io.Writer) error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(w, f)
			return err
		}))
	}
	return errors.Join(append(errs, err)...)
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(f)
	return errors.Join(write(b), b.Flush(), f.Close())
}
