package clients

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// patience is how long anything may take on a busy machine.
const patience = time.Minute

func TestMain(m *testing.M) {
	code := m.Run()
	member.Cleanup()
	os.Exit(code)
}

// fixture is a cluster, a client of all its members, and a prefix for the keys
// of one test.
type fixture struct {
	*testing.T
	*clientv3.Client
	cluster *member.Cluster
	prefix  string
}

func (f *fixture) key(name string) string { return f.prefix + name }

func (f *fixture) ctx() context.Context {
	ctx, cancel := context.WithTimeout(f.T.Context(), patience)
	f.T.Cleanup(cancel)
	return ctx
}

func must[A any](f *fixture) func(A, error) A {
	return func(a A, err error) A {
		f.T.Helper()
		if err != nil {
			f.T.Fatal(err)
		}
		return a
	}
}

// dial connects a client to some members of a cluster.
func dial(t *testing.T, c *member.Cluster, endpoints ...string) *clientv3.Client {
	t.Helper()
	if len(endpoints) == 0 {
		endpoints = c.Endpoints()
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: c.Certs.TLS(t), DialTimeout: patience,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (f *fixture) put(name, value string, opts ...clientv3.OpOption) *clientv3.PutResponse {
	f.T.Helper()
	return must[*clientv3.PutResponse](f)(f.Client.Put(f.ctx(), f.key(name), value, opts...))
}

func (f *fixture) get(name string, opts ...clientv3.OpOption) *clientv3.GetResponse {
	f.T.Helper()
	return must[*clientv3.GetResponse](f)(f.Client.Get(f.ctx(), f.key(name), opts...))
}

func (f *fixture) del(name string, opts ...clientv3.OpOption) *clientv3.DeleteResponse {
	f.T.Helper()
	return must[*clientv3.DeleteResponse](f)(f.Client.Delete(f.ctx(), f.key(name), opts...))
}

// pairs is an answer as text.
func (f *fixture) pairs(r *clientv3.GetResponse) string {
	var all []string
	for _, kv := range r.Kvs {
		all = append(all, strings.TrimPrefix(string(kv.Key), f.prefix)+"="+string(kv.Value))
	}
	return strings.Join(all, " ")
}

func (f *fixture) want(what string, got, want any) {
	f.T.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		f.T.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func (f *fixture) wantError(what string, err error, words string) {
	f.T.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		f.T.Errorf("%s: got %v, want %s", what, err, words)
	}
}

// eventually waits until something holds.
func (f *fixture) eventually(what string, holds func() bool) {
	f.T.Helper()
	for start := time.Now(); time.Since(start) < patience; time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	f.T.Fatalf("%s: not within %v", what, patience)
}

func TestEtcdsClientOnClustersOf(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			cluster := member.StartCluster(t, n, "--watch-progress-notify-interval", "200ms", member.SlowElections)
			for i, test := range []struct {
				name string
				run  func(*fixture)
			}{
				{"keys are put, read, sorted, kept and deleted", keys},
				{"the past can be read until it is compacted", past},
				{"a transaction compares by every target and may hold others", transactions},
				{"a watch tells what comes", watchNow},
				{"a watch tells what was", watchPast},
				{"a watch of a compacted past ends", watchCompacted},
				{"a watch of the future waits", watchFuture},
				{"a watch leaves out what is not wanted", watchFilters},
				{"a watch tells of progress", watchProgress},
				{"a watch may be cut into fragments", watchFragments},
				{"a lease takes its keys along", leases},
				{"a lease lives while it is kept alive", keepAlive},
				{"members tell their state", maintenance},
				{"alarms stop writes until they are disarmed", alarms},
				{"a snapshot comes whole", snapshot},
				{"a session ends with its lease", sessions},
				{"a lock is held by one", locks},
				{"an election has one leader at a time", elections},
				{"transactional memory loses no update", stm},
				{"the server locks for its clients", serverLocks},
				{"the server holds elections for its clients", serverElections},
				{"a range comes in parts", rangeStream},
			} {
				t.Run(test.name, func(t *testing.T) {
					test.run(&fixture{T: t, Client: dial(t, cluster), cluster: cluster, prefix: fmt.Sprintf("test%d/", i)})
				})
			}
		})
	}
}
