package transport

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
)

// stateOf is a source that counts how often it was closed.
type stateOf struct {
	*sourceOf
	closed atomic.Int64
}

func (s *stateOf) Close() error {
	s.closed.Add(1)
	return nil
}

func TestAStateIsFetchedWhole(t *testing.T) {
	src := &stateOf{sourceOf: source(nil)}
	_, a, _ := pair(t, func(c *Config) { c.State = func() (StateSource, error) { return src, nil } })
	for i, size := range []int{0, 1, chunkBytes, 9<<20 + 17} { // The last is larger than the window.
		src.data = randomBytes(size)
		var got []byte
		err := a.transport.FetchState(t.Context(), 2, func(r io.Reader) (err error) {
			got, err = io.ReadAll(r)
			return err
		})
		if err != nil || !bytes.Equal(got, src.data) {
			t.Fatalf("%d bytes of %d: %v", len(got), size, err)
		}
		a.await("the source to be closed", func() bool { return src.closed.Load() == int64(i+1) })
		if len(src.have) != 0 {
			t.Fatalf("the sender was told %q of a state that is not there", src.have)
		}
	}
}

func TestAStateThatBreaksOffIsNoState(t *testing.T) {
	src := &stateOf{sourceOf: source(randomBytes(1 << 20))}
	refuse := errors.New("nothing to give")
	var none atomic.Bool
	_, a, _ := pair(t, func(c *Config) {
		c.State = func() (StateSource, error) {
			if none.Load() {
				return nil, refuse
			}
			return src, nil
		}
	})
	all := func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	src.err = errors.New("base is damaged at page 7")
	if err := a.transport.FetchState(t.Context(), 2, all); err == nil || !strings.Contains(err.Error(), "page 7") {
		t.Errorf("a source that fails: %v", err)
	}
	src.err = nil
	if err := a.transport.FetchState(t.Context(), 2, func(io.Reader) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("taken before its end: %v", err)
	}
	mine := errors.New("no room")
	if err := a.transport.FetchState(t.Context(), 2, func(io.Reader) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("the taker fails: %v", err)
	}
	none.Store(true)
	a.await("no source", func() bool { // Until then the one before may be on its way out.
		err := a.transport.FetchState(t.Context(), 2, all)
		if err == nil || !strings.Contains(err.Error(), ErrBusy.Error()) && !strings.Contains(err.Error(), "nothing to give") {
			t.Fatalf("no source: %v", err)
		}
		return strings.Contains(err.Error(), "nothing to give")
	})
	if err := a.transport.FetchState(t.Context(), 9, all); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a stranger: %v", err)
	}
}

func TestAMemberThatGivesNoStatesSaysSo(t *testing.T) {
	_, a, _ := pair(t)
	err := a.transport.FetchState(t.Context(), 2, func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
	if err == nil || !strings.Contains(err.Error(), errNoState.Error()) {
		t.Fatal(err)
	}
}

func TestAStateThatIsCutIsNoState(t *testing.T) {
	src := &stateOf{sourceOf: source(randomBytes(40 << 20))}
	net, a, _ := pair(t, func(c *Config) { c.State = func() (StateSource, error) { return src, nil } })
	err := a.transport.FetchState(t.Context(), 2, func(r io.Reader) error {
		if _, err := io.CopyN(io.Discard, r, 1<<20); err != nil {
			return err
		}
		net.setCut(address(2), true)
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if err == nil {
		t.Fatal("a cut state passes for whole")
	}
	net.setCut(address(2), false)
	a.await("the source to be closed", func() bool { return src.closed.Load() == 1 })
}
