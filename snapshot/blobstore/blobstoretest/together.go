package blobstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

func cancelled(test *testing.T, p Place) {
	t := open(test, p)
	tag := t.put("there", []byte("x"), blobstore.Condition{})
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	_, _, getErr := t.Get(ctx, "there")
	_, rangeErr := t.GetRange(ctx, "there", 0, 1)
	_, putErr := t.Put(ctx, "new", []byte("x"), blobstore.Condition{})
	_, absentErr := t.Put(ctx, "new", []byte("x"), blobstore.Condition{Absent: true})
	_, matchErr := t.Put(ctx, "there", []byte("y"), blobstore.Condition{Match: tag})
	listErr := t.List(ctx, "", "", func(blobstore.Object) error { return errors.New("listed") })
	for verb, err := range map[string]error{
		"get": getErr, "range": rangeErr, "put": putErr, "put absent": absentErr, "put match": matchErr, "list": listErr, "delete": t.Delete(ctx, "there"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want Canceled", verb, err)
		}
	}
	t.lacks("new")
	t.has("there", []byte("x"), tag)

	ctx, cancel = context.WithCancel(t.ctx)
	t.put("there2", nil, blobstore.Condition{})
	err := t.List(ctx, "", "", func(blobstore.Object) error { cancel(); return ctx.Err() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a list that was cancelled on its way: %v", err)
	}
}

func noSharing(test *testing.T, p Place) {
	t := open(test, p)
	mine := []byte("mine")
	t.put("a", mine, blobstore.Condition{})
	mine[0] = 'w'
	got, _, err := t.Get(t.ctx, "a")
	if err != nil || string(got) != "mine" {
		t.Fatalf("got %q, %v", got, err)
	}
	got[0] = 'f'
	part, err := t.GetRange(t.ctx, "a", 0, 4)
	if err != nil || string(part) != "mine" {
		t.Fatalf("got %q, %v", part, err)
	}
	part[0] = 'l'
	t.has("a", []byte("mine"), "")
}

// readers read one object while it is replaced by others of other sizes. A
// range is of one of them too.
func readers(test *testing.T, p Place) {
	t := open(test, p)
	const writes = 40
	versions := [][]byte{bytes.Repeat([]byte("a"), 1000), bytes.Repeat([]byte("b"), 700_000), bytes.Repeat([]byte("c"), 300_000)}
	check := func(data []byte, full bool) error {
		for _, v := range versions {
			if bytes.HasPrefix(v, data) && len(data) > 0 && (!full || len(data) == len(v)) {
				return nil
			}
		}
		return fmt.Errorf("read %d bytes that nobody wrote", len(data))
	}
	tag := t.put("a", versions[0], blobstore.Condition{})
	done, stop := context.WithCancel(t.ctx)
	g := task.New(t.ctx)
	for range 3 {
		reader := open(test, p)
		g.Go("reader", func(ctx context.Context) error {
			for done.Err() == nil {
				data, _, err := reader.Get(ctx, "a")
				if err == nil {
					err = check(data, true)
				}
				if err != nil {
					return err
				}
				if data, err = reader.GetRange(ctx, "a", 0, 500_000); err == nil {
					err = check(data, len(data) < 500_000)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go("writer", func(ctx context.Context) error {
		defer stop()
		for i := range writes {
			c := blobstore.Condition{}
			if i%2 == 0 {
				c.Match = tag
			}
			var err error
			if tag, err = t.Put(ctx, "a", versions[(i+1)%len(versions)], c); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// adding has goroutines with handles of their own add lines to one object. A
// swap that won twice would lose one. A line may be there after a swap that was
// refused: it was sent twice, and somebody else was quick in between.
func adding(test *testing.T, p Place) {
	t := open(test, p)
	const writers, each = 4, 8
	t.put("lines", nil, blobstore.Condition{Absent: true})
	g := task.New(t.ctx)
	for w := range writers {
		s := t
		if w%2 == 0 {
			s = open(test, p)
		}
		g.Go("writer", func(ctx context.Context) error {
			for i := range each {
				if err := s.add(ctx, fmt.Sprintf("%d of writer %d\n", i, w)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	data, _, err := t.Get(t.ctx, "lines")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("\n")); n != writers*each {
		t.Errorf("%d lines, %d were added", n, writers*each)
	}
	for w := range writers {
		for i := range each {
			if line := fmt.Sprintf("%d of writer %d\n", i, w); bytes.Count(data, []byte(line)) != 1 {
				t.Errorf("%d times %q", bytes.Count(data, []byte(line)), line)
			}
		}
	}
}

// add adds a line once.
func (t tester) add(ctx context.Context, line string) error {
	for {
		data, tag, err := t.Get(ctx, "lines")
		if err != nil || bytes.Contains(data, []byte(line)) {
			return err
		}
		_, err = t.Put(ctx, "lines", append(data, line...), blobstore.Condition{Match: tag})
		if !errors.Is(err, blobstore.ErrCondition) {
			return err
		}
	}
}
