package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/ident"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/mvccpb"
)

// discovery is a cluster in which the first members of another find each other,
// as etcd's are used for it. Below /_etcd/registry/TOKEN/ lie _config/size, how
// many members the new cluster begins with, which the operator puts there; and
// members/ID with NAME=URL,… for each, in the order in which they came.
type discovery struct {
	token     string
	endpoints []string

	dialTimeout, requestTimeout     time.Duration
	keepAliveTime, keepAliveTimeout time.Duration

	insecureTransport, insecureVerify bool
	cert, key, caCert                 string
	user, password                    string

	log hclog.Logger
}

// discoveryPause is how long a service that does not answer is left alone.
const discoveryPause = 2 * time.Second

var (
	errNoSize      = errors.New("the service does not know the token")
	errFullCluster = errors.New("the cluster of this token has all its members")
	errSameName    = errors.New("two members have the same name")
)

// given tells whether members are to be found this way.
func (d *discovery) given() bool { return len(d.endpoints) > 0 || d.token != "" }

// check says what is wrong with how it was asked for.
func (d *discovery) check() error {
	if !d.given() {
		return nil
	}
	if len(d.endpoints) == 0 || d.token == "" {
		return wrongSetting("--discovery-endpoints and --discovery-token go together: where the service is, and which cluster this member is of")
	}
	if name, password, ok := strings.Cut(d.user, ":"); ok && d.password == "" {
		d.user, d.password = name, password
	}
	if d.user != "" && d.password == "" {
		return wrongSetting("--discovery-user %q needs --discovery-password", d.user)
	}
	c, err := d.client(hclog.NewNullLogger())
	if err != nil {
		return wrongSetting("--discovery-endpoints: %w", err)
	}
	return c.Close()
}

func (d *discovery) client(log hclog.Logger) (*client.Client, error) {
	secure, err := d.tls(log)
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{
		Endpoints: d.endpoints, TLS: secure, User: d.user, Password: d.password,
		DialTimeout: d.dialTimeout, RequestTimeout: d.requestTimeout,
		KeepAliveTime: d.keepAliveTime, KeepAliveTimeout: d.keepAliveTimeout,
		Logger: log,
	})
}

// tls is nil when nothing asks for encryption but perhaps an endpoint's scheme.
func (d *discovery) tls(log hclog.Logger) (*tls.Config, error) {
	if d.cert == "" && d.key == "" && d.caCert == "" && d.insecureTransport && !d.insecureVerify {
		return nil, nil
	}
	r, err := pki.NewReloader(pki.Config{
		FS: vfs.OS(), Clock: clock.Real(), Logger: log, Files: pki.Files{Cert: d.cert, Key: d.key, CA: d.caCert},
	})
	if err != nil {
		return nil, err
	}
	config := r.ClientConfig("")
	config.InsecureSkipVerify = d.insecureVerify
	return config, nil
}

// Join implements server.Discovery.
func (d *discovery) Join(ctx context.Context, id ident.MemberID, self string) (string, error) {
	c, err := d.client(d.log)
	if err != nil {
		return "", err
	}
	defer c.Close()
	r := &registration{
		Client: c, log: d.log, prefix: "/_etcd/registry/" + d.token + "/",
		key: "/_etcd/registry/" + d.token + "/members/" + id.String(), self: self,
	}
	for {
		text, err := r.join(ctx)
		switch {
		case err == nil:
			return text, nil
		case errors.Is(err, errNoSize):
			return "", fmt.Errorf("%w: put the number of first members under %s_config/size there", err, r.prefix)
		case errors.Is(err, errFullCluster), errors.Is(err, errSameName), ctx.Err() != nil:
			return "", err
		}
		d.log.Warn("the discovery service does not do what it should, asking again", "endpoints", d.endpoints, "error", err)
		select {
		case <-clock.Real().After(discoveryPause):
		case <-ctx.Done():
		}
	}
}

// registration is a member on its way into a cluster.
type registration struct {
	*client.Client
	log       hclog.Logger
	prefix    string // Of all that the service has of the cluster.
	key, self string // Of this member.
}

func (r *registration) join(ctx context.Context) (string, error) {
	answer, err := r.Get(ctx, client.Get{Range: client.One(r.prefix + "_config/size")})
	if err != nil {
		return "", err
	}
	if len(answer.Kvs) == 0 {
		return "", errNoSize
	}
	size, err := strconv.Atoi(string(answer.Kvs[0].Value))
	if err != nil || size <= 0 {
		return "", fmt.Errorf("%w: %q is no number of members", errNoSize, answer.Kvs[0].Value)
	}
	members, _, err := r.members(ctx)
	if err != nil {
		return "", err
	}
	if _, err := r.first(members, size); err != nil { // It is not for this member to write anything.
		return "", err
	}
	if _, err := r.Put(ctx, client.Put{Key: r.key, Value: []byte(r.self)}); err != nil {
		return "", err
	}
	r.log.Info("registered at the discovery service", "member", r.self, "size", size)
	for {
		members, revision, err := r.members(ctx)
		if err != nil {
			return "", err
		}
		first, err := r.first(members, size)
		if err != nil {
			return "", err
		}
		if len(first) == size {
			return initialCluster(first)
		}
		r.log.Info("waiting for others to register", "registered", len(first), "size", size)
		if err := r.wait(ctx, revision+1); err != nil {
			return "", err
		}
	}
}

// members are all that have registered, in the order in which they did.
func (r *registration) members(ctx context.Context) ([]*mvccpb.KeyValue, int64, error) {
	answer, err := r.Get(ctx, client.Get{Range: client.Prefix(r.prefix + "members/")})
	if err != nil {
		return nil, 0, err
	}
	members := slices.DeleteFunc(answer.Kvs, func(kv *mvccpb.KeyValue) bool { return !strings.Contains(string(kv.Value), "=") })
	slices.SortFunc(members, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	return members, answer.Header.Revision, nil
}

// first are those that make the cluster. Who came later than they did is told.
func (r *registration) first(members []*mvccpb.KeyValue, size int) ([]*mvccpb.KeyValue, error) {
	if len(members) < size {
		return members, nil
	}
	first := members[:size]
	if !slices.ContainsFunc(first, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == r.key }) {
		return nil, fmt.Errorf("%w: %d have registered; add this one with `member add`, and start it with --initial-cluster and --initial-cluster-state=existing", errFullCluster, size)
	}
	return first, nil
}

// wait returns when a registration has changed since a revision.
func (r *registration) wait(ctx context.Context, since int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := r.Watch(ctx, client.Watch{Range: client.Prefix(r.prefix + "members/"), Revision: since})
	for range w.Reports() {
		return nil
	}
	return cmp.Or(w.Err(), ctx.Err())
}

// initialCluster is the text of --initial-cluster with these members.
func initialCluster(members []*mvccpb.KeyValue) (string, error) {
	var parts, names []string
	for _, kv := range members {
		text := strings.TrimSpace(string(kv.Value))
		name, _, _ := strings.Cut(text, "=")
		if slices.Contains(names, name) {
			return "", fmt.Errorf("%w, %q: give each its own --name, and delete both registrations", errSameName, name)
		}
		parts, names = append(parts, text), append(names, name)
	}
	return strings.Join(parts, ","), nil
}
