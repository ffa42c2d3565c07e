package main

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
	"github.com/holdfast-db/holdfast/server"
)

func TestALockIsHeldWhileACommandRuns(t *testing.T) {
	tt := newTerminal(t, nil)
	stdout, stderr, code := tt.run(0, "", "lock", "l", "--", "sh", "-c", "echo $ETCD_LOCK_KEY $ETCD_LOCK_REV; exit 7")
	if code != 7 || !regexp.MustCompile(`^l/[0-9a-f]+ 2\n$`).MatchString(stdout) {
		t.Fatalf("code %d, %q, %s", code, stdout, stderr)
	}
	if got := tt.must("get", "l/", "--prefix"); got != "" {
		t.Fatalf("the lock is left: %q", got)
	}
	if got := tt.must("lease", "list"); got != "found 0 leases\n" {
		t.Fatalf("the lease is left: %q", got)
	}
	if _, _, code := tt.run(0, "", "lock", "l", "no-such-program"); code != exitFailed {
		t.Errorf("a program that there is not: code %d", code)
	}
	if _, _, code := tt.run(0, "", "lock"); code != exitArguments {
		t.Errorf("no name: code %d", code)
	}
	stdout, stderr, code = tt.run(2, "", "lock", "l", "--ttl", "20")
	if code != 0 || !regexp.MustCompile(`^l/[0-9a-f]+\n\n$`).MatchString(stdout) {
		t.Fatalf("until it is interrupted: code %d, %q, %s", code, stdout, stderr)
	}
	if got := tt.must("get", "l/", "--prefix"); got != "" {
		t.Fatalf("the lock is left after an interrupt: %q", got)
	}
}

func TestACandidateLeadsAndIsObserved(t *testing.T) {
	tt := newTerminal(t, nil)
	stdout, stderr, code := tt.run(2, "", "elect", "e", "me")
	if code != 0 || !regexp.MustCompile(`^e/[0-9a-f]+\nme\n$`).MatchString(stdout) {
		t.Fatalf("code %d, %q, %s", code, stdout, stderr)
	}
	if got := tt.must("get", "e/", "--prefix"); got != "" {
		t.Fatalf("the leadership is left: %q", got)
	}
	tt.must("put", "e/1", "you")
	if stdout, stderr, code := tt.run(2, "", "elect", "-l", "e"); code != 0 || stdout != "e/1\nyou\n" {
		t.Fatalf("observed: code %d, %q, %s", code, stdout, stderr)
	}
	if _, _, code := tt.run(0, "", "elect", "e"); code != exitArguments {
		t.Errorf("no proposal: code %d", code)
	}
}

func TestAMirrorHasWhatIsThereAndWhatComes(t *testing.T) {
	tt := newTerminal(t, func(c *server.Config) { c.TxnOpsMax = 3 })
	for _, key := range []string{"a/1", "a/2", "x"} {
		tt.must("put", key, "old")
	}
	c := &ctl{out: &screen{}, err: &screen{}, dial: tt.dial}
	c.globals.endpoints = []string{memberURL}
	connect := func() *client.Client {
		cl, err := c.client()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cl.Close() })
		return cl
	}
	m := &mirror{flags: &mirrorFlags{prefix: "a/", destPrefix: "b/", txnOpsMax: 3}, from: connect(), to: connect()}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.run(ctx) }()
	await := func(want string) {
		t.Helper()
		for tt.must("get", "b/", "--prefix") != want {
			select {
			case err := <-ended:
				t.Fatalf("the mirror ended: %v", err)
			default:
			}
		}
	}
	await("b/1\nold\nb/2\nold\n")
	tt.must("put", "a/3", "new")
	tt.must("del", "a/1")
	await("b/2\nold\nb/3\nnew\n")
	tt.must("put", "y", "beside")
	for _, key := range []string{"a/4", "a/5", "a/6", "a/7"} {
		tt.must("put", key, "new")
	}
	tt.must("del", "a/", "--prefix") // More than a transaction at the destination takes.
	await("")
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := m.key([]byte("a/1")); got != "b/1" {
		t.Errorf("key %q", got)
	}
	m.flags = &mirrorFlags{prefix: "a/", noDestPrefix: true}
	if got := m.key([]byte("a/1")); got != "1" {
		t.Errorf("key without a prefix %q", got)
	}
	for _, args := range [][]string{{}, {"h:1", "--dest-prefix", "a", "--no-dest-prefix"}, {"h:1", "--max-txn-ops", "0"}, {"h:1", "--dest-cert", "f"}} {
		if _, stderr, code := tt.run(0, "", append([]string{"make-mirror"}, args...)...); code != exitArguments {
			t.Errorf("%q: code %d, %s", args, code, stderr)
		}
	}
}

// The answers to the first transaction and to one of the changes are lost: what
// they were about is written again.
func TestAMirrorSurvivesLostAnswers(t *testing.T) {
	from, to := clienttest.New(t, 1), clienttest.New(t, 1)
	connect := func(cluster *clienttest.Cluster) *client.Client {
		c := &ctl{out: &screen{}, err: &screen{}, dial: cluster.Dial}
		c.globals.endpoints = cluster.Endpoints()
		cl, err := c.client()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cl.Close() })
		return cl
	}
	for i := range 10 {
		from.Put(fmt.Sprint("k", i), "old")
	}
	var txns atomic.Int64
	to.SetFaults(clienttest.Faults{After: func(_ context.Context, _ int, method string) error {
		if method != "Txn" {
			return nil
		}
		if n := txns.Add(1); n == 1 || n == 6 {
			return client.ErrTimeout
		}
		return nil
	}})
	m := &mirror{flags: &mirrorFlags{txnOpsMax: 3}, from: connect(from), to: connect(to)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.run(ctx) }()
	reader := connect(to)
	await := func(key, value string) {
		t.Helper()
		for {
			select {
			case err := <-ended:
				t.Fatalf("the mirror ended: %v", err)
			default:
			}
			r, err := reader.Get(t.Context(), client.Get{Range: client.One(key)})
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Kvs) == 1 && string(r.Kvs[0].Value) == value {
				return
			}
		}
	}
	await("k9", "old")
	from.Put("k5", "new")
	await("k5", "new")
	for m.total.Load() < 11 { // It is counted when the answer has come.
		runtime.Gosched()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	r, err := reader.Get(t.Context(), client.Get{Range: client.Prefix("k")})
	if err != nil || r.Count != 10 {
		t.Errorf("%d keys, %v", r.GetCount(), err)
	}
	if txns, puts := to.Calls("Txn"), to.Calls("Put"); txns != 7 || puts != 0 { // Four of the copy, one of the change, two again.
		t.Errorf("%d transactions, %d single puts", txns, puts)
	}
}

func TestGetInPartsPrintsWhatGetPrints(t *testing.T) {
	tt := newTerminal(t, nil)
	for _, key := range []string{"a", "b", "c"} {
		tt.must("put", key, "v"+key)
	}
	for _, args := range [][]string{{"a", "z"}, {"a", "--prefix", "--print-value-only"}, {"", "--from-key", "-w", "json"}, {"", "--prefix", "-w", "fields", "--limit", "2"}, {"", "--prefix", "--count-only", "-w", "fields"}} {
		whole := tt.must(append([]string{"get"}, args...)...)
		if parts := tt.must(append([]string{"get", "--stream"}, args...)...); parts != whole {
			t.Errorf("%q: %q, in parts %q", args, whole, parts)
		}
	}
	if _, stderr, code := tt.run(0, "", "get", "--stream", "a", "--order", "DESCEND"); code != exitFailed || stderr == "" {
		t.Errorf("sorted: code %d, %s", code, stderr)
	}
}
