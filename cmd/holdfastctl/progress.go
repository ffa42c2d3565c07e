package main

import (
	"io"
	"os"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far something long has come, if somebody is looking.
type progress struct {
	bar *progressbar.ProgressBar // Nil: nobody is.
}

// progress begins to show; total is below zero while it is not known.
func (c *ctl) progress(what string, total int64) *progress {
	if !terminal(c.err) {
		return &progress{}
	}
	return &progress{progressbar.NewOptions64(total, progressbar.OptionSetWriter(c.err), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())}
}

// set says that so many bytes are done, of so many if that is known.
func (p *progress) set(done, total int64) {
	if p.bar == nil {
		return
	}
	if total > 0 {
		p.bar.ChangeMax64(total)
	}
	_ = p.bar.Set64(done) // A bar that cannot be drawn is no reason to fail.
}

func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
