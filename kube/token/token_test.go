package token_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/client/clienttest"
	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
)

type fixture struct {
	clock   *clocktest.Fake
	cluster *clienttest.Cluster
	client  *client.Client
	store   *token.Store
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{clock: clocktest.New(), cluster: clienttest.New(t, 1)}
	cl, err := client.New(client.Config{Endpoints: f.cluster.Endpoints(), Dial: f.cluster.Dial, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	f.client, f.store = cl, token.New(token.Config{Client: cl, Clock: f.clock})
	return f
}

func (f *fixture) create(t *testing.T, req token.Request) token.Token {
	t.Helper()
	req.Authority = sha256.Sum256([]byte("ca"))
	made, _, err := f.store.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestATokenLetsInOneNodeOnceAndThatNodeAgain(t *testing.T) {
	f := newFixture(t)
	made := f.create(t, token.Request{})
	for _, c := range []struct {
		node, key string
		want      error
	}{
		{"n1", "k1", nil},
		{"n1", "k1", nil}, // The answer was lost.
		{"n1", "k2", token.ErrUsed},
		{"n2", "k1", token.ErrUsed},
		{"n2", "k2", token.ErrUsed},
	} {
		if err := f.store.Redeem(t.Context(), made.Proof(), c.node, c.key); !errors.Is(err, c.want) {
			t.Errorf("%s with %s: want %v, got %v", c.node, c.key, c.want, err)
		}
	}
}

func TestOfNodesThatRaceAsManyGetInAsTheTokenHasUses(t *testing.T) {
	for _, uses := range []int{1, 3} {
		f := newFixture(t)
		made := f.create(t, token.Request{Uses: uses})
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				errs[i] = f.store.Redeem(t.Context(), made.Proof(), fmt.Sprintf("n%d", i), "key")
			})
		}
		wg.Wait()
		in := 0
		for _, err := range errs {
			switch {
			case err == nil:
				in++
			case !errors.Is(err, token.ErrUsed):
				t.Error(err)
			}
		}
		if in != uses {
			t.Errorf("%d uses let %d nodes in", uses, in)
		}
	}
}

func TestATokenEnds(t *testing.T) {
	f := newFixture(t)
	short, long, bound := f.create(t, token.Request{Life: time.Hour}), f.create(t, token.Request{}), f.create(t, token.Request{Node: "n1"})
	if err := f.store.Redeem(t.Context(), bound.Proof(), "n2", "k"); !errors.Is(err, token.ErrNode) {
		t.Error(err)
	}
	f.clock.Advance(time.Hour)
	if err := f.store.Redeem(t.Context(), short.Proof(), "n1", "k"); !errors.Is(err, token.ErrExpired) {
		t.Error(err)
	}
	if all, err := f.store.List(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("%d tokens, %v", len(all), err)
	}
	if err := f.store.Revoke(t.Context(), long.ID); err != nil {
		t.Error(err)
	}
	if err := f.store.Redeem(t.Context(), long.Proof(), "n1", "k"); !errors.Is(err, token.ErrUnknown) {
		t.Error(err)
	}
	if err := f.store.Revoke(t.Context(), long.ID); !errors.Is(err, token.ErrUnknown) {
		t.Error(err)
	}
}

func TestTheStoreAndEveryMessageLackTheSecret(t *testing.T) {
	f := newFixture(t)
	made := f.create(t, token.Request{Description: "rack 7"})
	secret := strings.Split(made.Text(), ".")[2]
	stored, err := f.client.Get(t.Context(), client.Get{Range: client.Prefix("/holdfast/token/")})
	if err != nil || len(stored.GetKvs()) != 1 {
		t.Fatal(stored, err)
	}
	kv := stored.GetKvs()[0]
	if kv.GetLease() == 0 {
		t.Error("the record has no lease, and would stay for ever")
	}
	other := f.create(t, token.Request{})
	wrong := made.ID + "." + strings.Split(other.Text(), ".")[2]
	refused := f.store.Redeem(t.Context(), wrong, "n1", "k")
	if !errors.Is(refused, token.ErrUnknown) {
		t.Errorf("a wrong secret: %v", refused)
	}
	for _, text := range []string{string(kv.GetKey()), string(kv.GetValue()), fmt.Sprint(made), fmt.Sprintf("%v %+v %#v %s", made, made, made, made), refused.Error()} {
		if strings.Contains(text, secret) || strings.Contains(text, strings.Split(wrong, ".")[1]) {
			t.Errorf("holds the secret: %s", text)
		}
	}
}

func TestOnlyAWholeTokenIsRead(t *testing.T) {
	f := newFixture(t)
	made := f.create(t, token.Request{})
	read, err := token.Parse(" " + made.Text() + "\n")
	if err != nil || read != made {
		t.Fatalf("%v %v", read, err)
	}
	parts := strings.Split(made.Text(), ".")
	for _, bad := range []string{
		"", "holdfast", made.Proof(), made.Text()[1:], made.Text() + "0", strings.TrimSuffix(made.Text(), "0")[:60],
		strings.Join([]string{"holdfast", parts[1], parts[2][1:], parts[3]}, "."), strings.Join([]string{"holdfast", "", parts[2], parts[3]}, "."),
		strings.ToUpper(made.Text()),
	} {
		if _, err := token.Parse(bad); !errors.Is(err, token.ErrFormat) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for name, req := range map[string]token.Request{
		"short": {Life: time.Second}, "long": {Life: 9000 * time.Hour}, "uses": {Uses: -1}, "many": {Uses: 1 << 20}, "text": {Description: strings.Repeat("x", 300)},
	} {
		if _, _, err := f.store.Create(t.Context(), req); !errors.Is(err, token.ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := f.store.Create(t.Context(), token.Request{Node: "a/b"}); !errors.Is(err, pki.ErrRequest) {
		t.Error(err)
	}
}
