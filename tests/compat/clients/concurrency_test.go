package clients

import (
	"context"
	"errors"
	"strconv"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func (f *fixture) session(opts ...concurrency.SessionOption) *concurrency.Session {
	f.T.Helper()
	s := must[*concurrency.Session](f)(concurrency.NewSession(f.Client, opts...))
	f.T.Cleanup(func() { _ = s.Close() })
	return s
}

func sessions(f *fixture) {
	s := f.session(concurrency.WithTTL(10))
	f.put("a", "1", clientv3.WithLease(s.Lease()))
	if err := s.Close(); err != nil {
		f.T.Error(err)
	}
	<-s.Done()
	f.want("after its session", f.get("a").Count, 0)

	orphan := f.session(concurrency.WithTTL(heldTTL))
	at := f.put("b", "1", clientv3.WithLease(orphan.Lease())).Header.Revision
	orphan.Orphan()
	ch, cancel := f.watch("b", clientv3.WithRev(at+1))
	defer cancel()
	f.want("nobody kept it alive", f.take(ch, 1), "delete b=")
}

func locks(f *fixture) {
	const workers, rounds = 4, 5
	inside, total := 0, 0
	var wg sync.WaitGroup
	for range workers {
		s := f.session()
		wg.Go(func() {
			m := concurrency.NewMutex(s, f.key("lock"))
			for range rounds {
				if err := m.Lock(f.ctx()); err != nil {
					f.T.Error(err)
					return
				}
				if inside++; inside != 1 { // A race of these is an error that the detector finds too.
					f.T.Errorf("%d inside", inside)
				}
				total++
				inside--
				if err := m.Unlock(f.ctx()); err != nil {
					f.T.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f.want("rounds", total, workers*rounds)

	first, second := concurrency.NewMutex(f.session(), f.key("try")), concurrency.NewMutex(f.session(), f.key("try"))
	if err := first.TryLock(f.ctx()); err != nil {
		f.T.Error(err)
	}
	if err := second.TryLock(f.ctx()); !errors.Is(err, concurrency.ErrLocked) {
		f.T.Errorf("a lock that is taken: %v", err)
	}
}

func elections(f *fixture) {
	s1, s2 := f.session(), f.session()
	e1, e2 := concurrency.NewElection(s1, f.key("election")), concurrency.NewElection(s2, f.key("election"))
	if err := e1.Campaign(f.ctx(), "one"); err != nil {
		f.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.ctx())
	defer cancel()
	seen := e2.Observe(ctx)
	f.want("observed", string((<-seen).Kvs[0].Value), "one")
	won := make(chan error, 1)
	go func() { won <- e2.Campaign(f.ctx(), "two") }()
	if err := e1.Proclaim(f.ctx(), "still one"); err != nil {
		f.T.Error(err)
	}
	f.want("observed", string((<-seen).Kvs[0].Value), "still one")
	leader := must[*clientv3.GetResponse](f)(e2.Leader(f.ctx()))
	f.want("leader", string(leader.Kvs[0].Value), "still one")
	if err := e1.Resign(f.ctx()); err != nil {
		f.T.Error(err)
	}
	if err := <-won; err != nil {
		f.T.Fatal(err)
	}
	f.want("observed", string((<-seen).Kvs[0].Value), "two")
	if err := e2.Resign(f.ctx()); err != nil {
		f.T.Error(err)
	}
	_, err := e1.Leader(f.ctx())
	f.want("nobody", errors.Is(err, concurrency.ErrElectionNoLeader), true)
}

func stm(f *fixture) {
	const workers, rounds = 5, 10
	f.put("n", "0")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			level := []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable}[w%2]
			for range rounds {
				_, err := concurrency.NewSTM(f.Client, func(s concurrency.STM) error {
					n, err := strconv.Atoi(s.Get(f.key("n")))
					s.Put(f.key("n"), strconv.Itoa(n+1))
					return err
				}, concurrency.WithIsolation(level), concurrency.WithAbortContext(f.ctx()))
				if err != nil {
					f.T.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f.want("sum", f.pairs(f.get("n")), "n="+strconv.Itoa(workers*rounds))
}
