package blobstoretest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
)

const races = 100

// What a child writes to, and how long it waits for an answer.
const (
	childVariable   = "HOLDFAST_BLOBSTORE_CHILD"
	timeoutVariable = "HOLDFAST_BLOBSTORE_TIMEOUT"
)

// Main is the TestMain of a package that calls Conformance: it lets the same
// binary be the other process of a race.
func Main(m *testing.M) {
	url := os.Getenv(childVariable)
	if url == "" {
		os.Exit(m.Run())
	}
	if err := child(url); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// order is what a child shall write, and verdict how it went, a line each.
type (
	order struct {
		Name   string
		Data   []byte
		Absent bool
		Match  blobstore.Tag
	}
	verdict struct {
		Tag   blobstore.Tag
		Lost  bool
		Error string
	}
)

func child(url string) error {
	timeout, err := time.ParseDuration(os.Getenv(timeoutVariable))
	if err != nil {
		return err
	}
	s, err := blobstore.Open(context.Background(), url, blobstore.Config{Timeout: timeout})
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return s.Close()
		} else if err != nil {
			return err
		}
		if err := out.Encode(write(context.Background(), s, o)); err != nil {
			return err
		}
	}
}

func write(ctx context.Context, s blobstore.Store, o order) verdict {
	tag, err := s.Put(ctx, o.Name, o.Data, blobstore.Condition{Absent: o.Absent, Match: o.Match})
	switch {
	case errors.Is(err, blobstore.ErrCondition):
		return verdict{Lost: true}
	case err != nil:
		return verdict{Error: err.Error()}
	}
	return verdict{Tag: tag}
}

// rival carries out orders, in another process where there can be one.
type rival func(o order) verdict

func rivals(t *testing.T, p Place, n int) []rival {
	var all []rival
	for range n {
		if p.URL == "" {
			s := open(t, p)
			all = append(all, func(o order) verdict { return write(t.Context(), s, o) })
			continue
		}
		all = append(all, startRival(t, p))
	}
	return all
}

func startRival(t *testing.T, p Place) rival {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"="+p.URL, timeoutVariable+"="+p.Timeout.String())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
			t.Errorf("the other process: %v", err)
		}
	})
	in, out := json.NewEncoder(stdin), json.NewDecoder(bufio.NewReader(stdout))
	return func(o order) verdict {
		var v verdict
		if err := errors.Join(in.Encode(o), out.Decode(&v)); err != nil {
			v.Error = "the other process: " + err.Error()
		}
		return v
	}
}

// compete has all rivals carry out an order at once, and returns the winner.
func compete(t *testing.T, all []rival, o func(rival int) order) (winner int, tag blobstore.Tag) {
	t.Helper()
	verdicts := make([]verdict, len(all))
	g := task.New(t.Context())
	for i, r := range all {
		g.Go("rival", func(context.Context) error {
			verdicts[i] = r(o(i))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	winner = -1
	for i, v := range verdicts {
		switch {
		case v.Error != "":
			t.Fatal(v.Error)
		case !v.Lost && winner >= 0:
			t.Fatalf("rivals %d and %d both won", winner, i)
		case !v.Lost:
			winner, tag = i, v.Tag
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	return winner, tag
}

// words of a rival are its own: were they equal, the loser could not be told.
func words(rival, round int) []byte { return fmt.Appendf(nil, "rival %d in round %d", rival, round) }

func raceAbsent(test *testing.T, p Place) {
	t := open(test, p)
	all := rivals(test, p, 2)
	won := map[int]int{}
	for round := range races {
		name := fmt.Sprintf("epoch/%d.json", round)
		winner, tag := compete(test, all, func(i int) order {
			return order{Name: name, Data: words(i, round), Absent: true}
		})
		t.has(name, words(winner, round), tag)
		won[winner]++
	}
	t.Logf("rounds won: %v", won)
}

func raceMatch(test *testing.T, p Place) {
	t := open(test, p)
	all := rivals(test, p, 2)
	tag := t.put("owner.json", []byte("nobody"), blobstore.Condition{Absent: true})
	for round := range races {
		var winner int
		before := tag
		winner, tag = compete(test, all, func(i int) order {
			return order{Name: "owner.json", Data: words(i, round), Match: before}
		})
		t.has("owner.json", words(winner, round), tag)
	}
}
