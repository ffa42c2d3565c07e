package clients

import (
	clientv3 "go.etcd.io/etcd/client/v3"
)

func keys(f *fixture) {
	f.put("a", "1")
	f.put("b", "3")
	f.put("c", "2")
	f.want("one key", f.pairs(f.get("a")), "a=1")
	f.want("a prefix", f.pairs(f.get("", clientv3.WithPrefix())), "a=1 b=3 c=2")
	f.want("a range", f.pairs(f.get("a", clientv3.WithRange(f.key("c")))), "a=1 b=3")
	f.want("from a key on", f.get("b", clientv3.WithFromKey(), clientv3.WithLimit(2)).Count >= 2, true)
	f.want("sorted by value", f.pairs(f.get("", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend))), "b=3 c=2 a=1")
	limited := f.get("", clientv3.WithPrefix(), clientv3.WithLimit(2))
	f.want("limited", f.pairs(limited), "a=1 b=3")
	f.want("count before the limit", limited.Count, 3)
	f.want("more", limited.More, true)
	f.want("count only", f.get("", clientv3.WithPrefix(), clientv3.WithCountOnly()).Count, 3)
	f.want("keys only", f.pairs(f.get("", clientv3.WithPrefix(), clientv3.WithKeysOnly())), "a= b= c=")
	f.want("serializable", f.get("a", clientv3.WithSerializable()).Count <= 1, true)
	f.want("the newest", f.pairs(f.get("", clientv3.WithLastRev()...)), "c=2")

	f.want("previous value", string(f.put("a", "4", clientv3.WithPrevKV()).PrevKv.Value), "1")
	f.put("a", "", clientv3.WithIgnoreValue())
	f.want("kept value", f.pairs(f.get("a")), "a=4")
	_, err := f.Client.Put(f.ctx(), f.key("none"), "", clientv3.WithIgnoreValue())
	f.wantError("a value that is not there", err, "etcdserver: key not found")
	_, err = f.Client.Put(f.ctx(), "", "")
	f.wantError("no key", err, "etcdserver: key is not provided")

	gone := f.del("a", clientv3.WithPrevKV())
	f.want("deleted", gone.Deleted, 1)
	f.want("what was deleted", string(gone.PrevKvs[0].Value), "4")
	f.want("deleted by prefix", f.del("", clientv3.WithPrefix()).Deleted, 2)
	f.want("deleted again", f.del("", clientv3.WithPrefix()).Deleted, 0)
	f.want("nothing left", f.get("", clientv3.WithPrefix()).Count, 0)
}

func past(f *fixture) {
	var revisions []int64
	for _, value := range []string{"1", "2", "3"} {
		revisions = append(revisions, f.put("k", value).Header.Revision)
	}
	f.want("the first", f.pairs(f.get("k", clientv3.WithRev(revisions[0]))), "k=1")
	f.want("modified later", f.get("", clientv3.WithPrefix(), clientv3.WithMinModRev(revisions[2]+1)).Count, 1)
	must[*clientv3.CompactResponse](f)(f.Client.Compact(f.ctx(), revisions[1], clientv3.WithCompactPhysical()))
	f.want("at the compacted revision", f.pairs(f.get("k", clientv3.WithRev(revisions[1]))), "k=2")
	_, err := f.Client.Get(f.ctx(), f.key("k"), clientv3.WithRev(revisions[0]))
	f.wantError("below", err, "required revision has been compacted")
	_, err = f.Client.Get(f.ctx(), f.key("k"), clientv3.WithRev(1<<40))
	f.wantError("above", err, "required revision is a future revision")
	_, err = f.Client.Compact(f.ctx(), revisions[1])
	f.wantError("again", err, "required revision has been compacted")
	_, err = f.Client.Compact(f.ctx(), 1<<40)
	f.wantError("in the future", err, "required revision is a future revision")
}

func transactions(f *fixture) {
	lease := must[*clientv3.LeaseGrantResponse](f)(f.Client.Grant(f.ctx(), 600)).ID
	made := f.put("k", "5", clientv3.WithLease(lease)).Header.Revision
	last := f.put("k", "6", clientv3.WithIgnoreLease()).Header.Revision
	k := f.key("k")
	for _, c := range []struct {
		name string
		cmp  clientv3.Cmp
		yes  bool
	}{
		{"value =", clientv3.Compare(clientv3.Value(k), "=", "6"), true},
		{"value !=", clientv3.Compare(clientv3.Value(k), "!=", "6"), false},
		{"value >", clientv3.Compare(clientv3.Value(k), ">", "5"), true},
		{"value <", clientv3.Compare(clientv3.Value(k), "<", "5"), false},
		{"value of nothing", clientv3.Compare(clientv3.Value(f.key("none")), "!=", "5"), false},
		{"version", clientv3.Compare(clientv3.Version(k), "=", 2), true},
		{"version of nothing", clientv3.Compare(clientv3.Version(f.key("none")), "=", 0), true},
		{"create revision", clientv3.Compare(clientv3.CreateRevision(k), "=", made), true},
		{"mod revision", clientv3.Compare(clientv3.ModRevision(k), ">", last-1), true},
		{"lease", clientv3.Compare(clientv3.LeaseValue(k), "=", lease), true},
		{"a range, all", clientv3.Compare(clientv3.Version(f.prefix), ">", 0).WithPrefix(), true},
		{"a range, not all", clientv3.Compare(clientv3.Value(f.prefix), "=", "7").WithPrefix(), false},
	} {
		r := must[*clientv3.TxnResponse](f)(f.Client.Txn(f.ctx()).If(c.cmp).Then(clientv3.OpGet(k)).Commit())
		f.want(c.name, r.Succeeded, c.yes)
	}

	r := must[*clientv3.TxnResponse](f)(f.Client.Txn(f.ctx()).
		If(clientv3.Compare(clientv3.Version(k), "=", 0)).
		Then(clientv3.OpPut(f.key("never"), "")).
		Else(
			clientv3.OpPut(f.key("x"), "1"),
			clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Version(k), "=", 2)},
				[]clientv3.Op{clientv3.OpGet(f.key("x")), clientv3.OpDelete(k)}, nil),
			clientv3.OpGet(k),
		).Commit())
	inner := r.Responses[1].GetResponseTxn()
	f.want("outer", r.Succeeded, false)
	f.want("inner", inner.Succeeded, true)
	f.want("an earlier put is seen", string(inner.Responses[0].GetResponseRange().Kvs[0].Value), "1")
	f.want("deleted inside", inner.Responses[1].GetResponseDeleteRange().Deleted, 1)
	f.want("gone for what follows", r.Responses[2].GetResponseRange().Count, 0)
	f.want("one revision for all", r.Header.Revision, last+1)

	_, err := f.Client.Txn(f.ctx()).Then(clientv3.OpPut(k, "1"), clientv3.OpPut(k, "2")).Commit()
	f.wantError("a key twice", err, "duplicate key given in txn request")
	_, err = f.Client.Txn(f.ctx()).Then(clientv3.OpPut(k, "1"), clientv3.OpGet(k, clientv3.WithRev(1<<40))).Commit()
	f.wantError("a future range", err, "required revision is a future revision")
	f.want("no effect", f.get("k").Count, 0)
	var many []clientv3.Op
	for range 129 {
		many = append(many, clientv3.OpGet(k))
	}
	_, err = f.Client.Txn(f.ctx()).Then(many...).Commit()
	f.wantError("too many", err, "too many operations in txn request")
}
