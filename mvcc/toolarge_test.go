package mvcc

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

func TestTheLongestKeyIsKeptAndALongerOneRefused(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	longest := string(bytes.Repeat([]byte("k"), KeyBytesMax))
	w.do(func(tx *Tx) error {
		_, err := tx.Put(PutArgs{Key: []byte(longest), Value: []byte("one"), Lease: -1})
		return err
	})
	w.do(func(tx *Tx) error {
		if _, err := tx.Put(PutArgs{Key: []byte(longest + "k")}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a longer key: %v", err)
		}
		return nil
	})
	wantValue(t, s, longest, 0, "one")
	v := s.View()
	if keys, err := v.LeaseKeys(-1); err != nil || len(keys) != 1 || string(keys[0]) != longest {
		t.Errorf("%d keys on the lease, %v", len(keys), err)
	}
	v.Release()
	w.put("a", "x")
	w.compact(2)
	w.put(longest, "two")
	stepAll(t, s)
	wantValue(t, s, longest, 2, "one")
	mustClose(t, s)
	s = mustOpen(t, cfg)
	wantValue(t, s, longest, 0, "two")
	mustClose(t, s)
}

// TestAnEntryChangesNoMoreThanARecordHolds has small requests ask for large changes:
// what does not fit is refused whole, and what comes after it in the entry is done.
func TestAnEntryChangesNoMoreThanARecordHolds(t *testing.T) {
	cfg := testConfig(t)
	cfg.entryBytes = 64 << 10
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	const keys = 10
	value := string(bytes.Repeat([]byte("v"), 10<<10))
	key := func(i int) string { return fmt.Sprintf("k%02d", i) }
	for i := range keys {
		w.put(key(i), value)
	}
	touch := func(tx *Tx, n int) (err error) {
		for i := 0; i < n && err == nil; i++ {
			_, err = tx.Put(PutArgs{Key: []byte(key(i)), IgnoreValue: true})
		}
		return err
	}
	head := s.Head()
	e := s.Begin(s.Applied().Position.Index+1, 1, 0)
	for i, c := range []struct {
		keys int
		fits bool
	}{{4, true}, {3, false}, {2, true}, {1, false}} {
		tx := e.Tx()
		err := touch(tx, c.keys)
		if c.fits != (err == nil) || !c.fits && !errors.Is(err, ErrTooLarge) {
			t.Errorf("request %d: %v", i, err)
		}
		if err != nil {
			tx.Abort()
		} else {
			tx.Commit()
		}
	}
	if err := e.Commit(); err != nil {
		t.Fatal(err)
	}
	if s.Head() != head+2 {
		t.Errorf("head is %d, it was %d", s.Head(), head)
	}
	for i := range keys {
		wantValue(t, s, key(i), 0, value)
	}
	w.do(func(tx *Tx) error {
		n, _, err := tx.DeleteRange([]byte{0}, []byte{0}, false)
		if n != keys {
			t.Errorf("deleted %d", n)
		}
		return err
	})
	for i := range 600 {
		w.put(fmt.Sprintf("many%d", i), "")
	}
	w.do(func(tx *Tx) error {
		if _, _, err := tx.DeleteRange([]byte{0}, []byte{0}, false); !errors.Is(err, ErrTooLarge) {
			t.Errorf("to delete too many: %v", err)
		}
		return nil
	})
	mustClose(t, s)
}

type asked func(tx *Tx) error

// some reads the keys from 0 to n, gone deletes them.
func some(n int, f func(a *RangeArgs)) asked {
	return func(tx *Tx) error {
		a := RangeArgs{Key: []byte("0"), End: fmt.Append(nil, n)}
		if f != nil {
			f(&a)
		}
		_, err := tx.Range(a)
		return err
	}
}

func gone(to string, wantPrev bool) asked {
	return func(tx *Tx) error {
		_, _, err := tx.DeleteRange([]byte("0"), []byte(to), wantPrev)
		return err
	}
}

// TestAnAnswerTakesNoMoreThanItMay has one request of the log read, in all ways, what
// is more together than one may.
func TestAnAnswerTakesNoMoreThanItMay(t *testing.T) {
	cfg := testConfig(t)
	cfg.answerBytes = 64 << 10
	s := mustCreate(t, cfg)
	w := writer{t: t, s: s}
	value := bytes.Repeat([]byte("v"), 10<<10)
	for i := range 10 {
		w.put(fmt.Sprint(i), string(value))
		if i == 6 {
			w.compact(s.Head()) // Some rows are in base, others in history.
			stepAll(t, s)
		}
	}
	prev := func(key string) asked {
		return func(tx *Tx) error {
			_, err := tx.Put(PutArgs{Key: []byte(key), Value: value, WantPrev: true})
			return err
		}
	}
	descending := func(a *RangeArgs) { a.SortOrder = SortDescend }
	byValue := func(a *RangeArgs) { a.SortTarget, a.KeysOnly = SortByValue, true }
	few := func(a *RangeArgs) { a.SortTarget, a.SortOrder, a.Limit = SortByMod, SortDescend, 2 }
	for name, c := range map[string]struct {
		steps []asked
		fits  bool
	}{
		"six keys":                   {[]asked{some(6, nil)}, true},
		"seven keys":                 {[]asked{some(7, nil)}, false},
		"three and three":            {[]asked{some(3, nil), some(3, nil)}, true},
		"three and four":             {[]asked{some(3, nil), some(4, nil)}, false},
		"all of them counted":        {[]asked{some(9, func(a *RangeArgs) { a.CountOnly = true })}, true},
		"all of them without values": {[]asked{some(9, func(a *RangeArgs) { a.KeysOnly = true })}, true},
		"all of them in parts":       {[]asked{some(9, func(a *RangeArgs) { a.PartBytes = 1 })}, true},
		"six sorted":                 {[]asked{some(6, descending)}, true},
		"seven sorted":               {[]asked{some(7, descending)}, false},
		"seven sorted by value":      {[]asked{some(7, byValue)}, false},
		"two of six":                 {[]asked{some(6, few), some(4, nil)}, true},
		"puts that tell":             {[]asked{some(5, nil), prev("0"), prev("8")}, false},
		"a put that tells":           {[]asked{some(5, nil), prev("0")}, true},
		"what is put is read":        {[]asked{prev("0"), some(5, nil)}, true},
		"what is put is read again":  {[]asked{prev("0"), some(6, nil)}, false},
		"deletions that tell":        {[]asked{gone("7", true)}, false},
		"few deletions that tell":    {[]asked{gone("6", true)}, true},
		"deletions":                  {[]asked{gone("9", false)}, true},
	} {
		e := s.Begin(s.Applied().Position.Index+1, 1, 0)
		tx := e.Tx()
		var err error
		for i, step := range c.steps {
			if err != nil {
				t.Errorf("%s: step %d: %v", name, i, err)
			}
			err = step(tx)
		}
		if c.fits != (err == nil) || !c.fits && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		tx.Abort()
		if err := e.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, s)
}
