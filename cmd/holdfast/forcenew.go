package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/datadir"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/snapshot"
	"github.com/holdfast-db/holdfast/snapshot/archive"
	"github.com/holdfast-db/holdfast/snapshot/blobstore"
	"github.com/holdfast-db/holdfast/snapshot/recovery"
)

// forceNewCluster makes this member the only one of a new cluster: a recovery
// whose one survivor it is. Whoever gives the flag accepts what that may lose.
// Once that is done, the flag changes nothing any more.
func forceNewCluster(cfg server.Config) error {
	src, err := sourceOf(cfg)
	if err != nil {
		return err
	}
	rc := recovery.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: cfg.Logger}
	ctx := context.Background()
	plan, err := recovery.UnderWay(rc, src)
	if err == nil && plan == nil {
		plan, err = planAlone(ctx, cfg, rc, src)
	}
	if errors.Is(err, datadir.ErrEmpty) {
		return fmt.Errorf("--force-new-cluster: %w: there is nothing to recover, leave the flag out", err)
	}
	if err != nil {
		return fmt.Errorf("--force-new-cluster: %w", err)
	}
	if plan == nil {
		cfg.Logger.Info("this member is the only one of its cluster already, --force-new-cluster changes nothing")
		return nil
	}
	cfg.Logger.Warn("forcing a new cluster with this member alone", "plan", plan.ID, "committed", plan.Committed, "kept", plan.Keep.Index,
		"may-lose", plan.Loss.Possible, "from", plan.Loss.From, "until", plan.Loss.Until)
	fence, done, err := openFence(ctx, cfg, plan)
	if err != nil {
		return fmt.Errorf("--force-new-cluster: %w", err)
	}
	defer done()
	err = recovery.Apply(ctx, recovery.ApplyConfig{
		Config: rc, Random: rand.Reader, AcceptLoss: plan.ID, Archive: fence, NoEpoch: fence == nil, By: "--force-new-cluster of " + cfg.Name,
		Step: func(name string) error { cfg.Logger.Info("recovery", "step", name); return nil },
	}, plan)
	if err != nil {
		return fmt.Errorf("--force-new-cluster: %w", err)
	}
	return nil
}

// openFence opens the archive in which a plan takes its epoch. Where members did
// not look for epochs, one that does not answer is no hindrance.
func openFence(ctx context.Context, cfg server.Config, plan *recovery.Plan) (*archive.Archive, func() error, error) {
	if plan.Fence == nil {
		return nil, func() error { return nil }, nil
	}
	a, store, err := openArchive(ctx, plan.Fence.URL, plan.UUID)
	if err != nil && !cfg.EpochStrict() {
		cfg.Logger.Warn("no epoch is taken: old members that still run are not kept from answering", "error", err)
		return nil, func() error { return nil }, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("take an epoch: %w: if the archive is lost as well, leave --archive-url out, or use holdfastctl recover apply --no-epoch", err)
	}
	return a, store.Close, nil
}

func openArchive(ctx context.Context, url, cluster string) (*archive.Archive, blobstore.Store, error) {
	var uuid archive.UUID
	if err := uuid.UnmarshalText([]byte(cluster)); err != nil {
		return nil, nil, err
	}
	return archive.OpenURL(ctx, url, uuid, nil)
}

func sourceOf(cfg server.Config) (src recovery.Source, err error) {
	src.DataDir, err = filepath.Abs(cmp.Or(cfg.DataDir, cfg.Name+".holdfast"))
	if err == nil && cfg.WALDir != "" {
		src.WALDir, err = filepath.Abs(cfg.WALDir)
	}
	return src, err
}

// planAlone plans with the one survivor; nil where it is alone already.
func planAlone(ctx context.Context, cfg server.Config, rc recovery.Config, src recovery.Source) (*recovery.Plan, error) {
	m, err := recovery.Collect(ctx, rc, src)
	if err != nil {
		return nil, err
	}
	dead := m.Others()
	if m.State != nil && len(dead) == 0 {
		return nil, nil
	}
	nonce, err := snapshot.NewNonce(rand.Reader)
	if err != nil {
		return nil, err
	}
	peers, clients := cfg.AdvertisePeerURLs, cfg.AdvertiseClientURLs
	if len(peers) == 0 {
		peers = cfg.ListenPeerURLs
	}
	ask := recovery.Ask{
		Dead: dead, Nonce: nonce, Now: rc.Clock.Wall(),
		Members: []snapshot.Target{{Name: cfg.Name, PeerURLs: peers, ClientURLs: clients, DataDir: src.DataDir, WALDir: src.WALDir}},
	}
	facts := &recovery.Facts{Members: []recovery.Member{*m}}
	if err := askArchive(ctx, cfg, facts, &ask); err != nil {
		return nil, err
	}
	return recovery.NewPlan(facts, ask)
}

// askArchive plans an epoch, where there is an archive that answers or must.
func askArchive(ctx context.Context, cfg server.Config, facts *recovery.Facts, ask *recovery.Ask) error {
	if cfg.ArchiveURL == "" {
		return nil
	}
	a, store, err := openArchive(ctx, cfg.ArchiveURL, facts.Members[0].UUID)
	if err == nil {
		defer store.Close()
		ask.ArchiveURL = cfg.ArchiveURL
		ask.NewestEpoch, err = a.NewestEpoch(ctx)
	}
	if err != nil && !cfg.EpochStrict() {
		cfg.Logger.Warn("no epoch is planned: the archive does not answer", "error", err)
		ask.ArchiveURL = ""
		return nil
	}
	return err
}
