package kubernetes

import (
	"context"
	"testing"

	"k8s.io/apiserver/pkg/features"
	contract "k8s.io/apiserver/pkg/storage/testing"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
)

// simple are the rules that ask for a storage and nothing more.
func simple(rule func(context.Context, *testing.T, *fixture)) func(*testing.T) {
	return func(t *testing.T) {
		rule(t.Context(), t, newFixture(t))
	}
}

// TestTheContractOfStorages holds for each storage of an API server. It is
// written there; here stands what each rule needs.
func TestTheContractOfStorages(t *testing.T) {
	for _, rule := range []struct {
		name string
		run  func(context.Context, *testing.T, *fixture)
	}{
		{"create", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestCreate(ctx, t, f, f.wellStored) }},
		{"create with ttl", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestCreateWithTTL(ctx, t, f) }},
		{"create twice", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestCreateWithKeyExist(ctx, t, f) }},
		{"get", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestGet(ctx, t, f) }},
		{"delete", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestUnconditionalDelete(ctx, t, f) }},
		{"delete on condition", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestConditionalDelete(ctx, t, f) }},
		{"delete with suggestion", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestDeleteWithSuggestion(ctx, t, f) }},
		{"delete with suggestion and conflict", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestDeleteWithSuggestionAndConflict(ctx, t, f)
		}},
		{"delete with suggestion of what is gone", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestDeleteWithSuggestionOfDeletedObject(ctx, t, f)
		}},
		{"delete with conflict", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestDeleteWithConflict(ctx, t, f) }},
		{"validated delete", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestValidateDeletionWithSuggestion(ctx, t, f)
		}},
		{"validated delete, only the suggestion is valid", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestValidateDeletionWithOnlySuggestionValid(ctx, t, f)
		}},
		{"preconditions with suggestion", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestPreconditionalDeleteWithSuggestion(ctx, t, f)
		}},
		{"preconditions only of the suggestion", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestPreconditionalDeleteWithOnlySuggestionPass(ctx, t, f)
		}},
		{"guarded update", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestGuaranteedUpdate(ctx, t, f, f.wellStored)
		}},
		{"guarded update with ttl", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestGuaranteedUpdateWithTTL(ctx, t, f)
		}},
		{"guarded update looks at what is stored", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestGuaranteedUpdateChecksStoredData(ctx, t, f)
		}},
		{"guarded update with conflict", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestGuaranteedUpdateWithConflict(ctx, t, f)
		}},
		{"guarded update with suggestion and conflict", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestGuaranteedUpdateWithSuggestionAndConflict(ctx, t, f)
		}},
		{"what cannot be read", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestTransformationFailure(ctx, t, f) }},
	} {
		t.Run(rule.name, simple(rule.run))
	}
}

// The same for lists, compaction and what is told of all.
func TestTheContractOfLists(t *testing.T) {
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.ListFromCacheSnapshot, true)
	for _, rule := range []struct {
		name string
		run  func(context.Context, *testing.T, *fixture)
	}{
		{"list", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestList(ctx, t, f, f.compact, false, f.lists)
		}},
		{"consistent list", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestConsistentList(ctx, t, f, f.raiseRevision, false, true, false)
		}},
		{"list of one", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestGetListNonRecursive(ctx, t, f.raiseRevision, f)
		}},
		{"list below a prefix", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestGetListRecursivePrefix(ctx, t, f) }},
		{"list by pages", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestListPaging(ctx, t, f) }},
		{"list goes on", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestListContinuation(ctx, t, f, f.countsReads)
		}},
		{"list with filter goes on", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestListContinuationWithFilter(ctx, t, f, f.countsReads)
		}},
		{"list goes on after a compaction", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestListInconsistentContinuation(ctx, t, f, f.compact)
		}},
		{"list at a version", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestListResourceVersionMatch(ctx, t, f)
		}},
		{"list of a namespace", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestNamespaceScopedList(ctx, t, f) }},
		{"compaction is noticed", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestCompactRevision(ctx, t, f, f.raiseRevision, f.compact)
		}},
		{"keys", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestKeySchema(ctx, t, f) }},
		{"statistics", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestStats(ctx, t, f, codec, f.values, false)
		}},
	} {
		t.Run(rule.name, simple(rule.run))
	}
	t.Run("list of something rare", func(t *testing.T) {
		featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.ListFromCacheSnapshot, false)
		f := newFixture(t)
		contract.RunTestListPaginationRareObject(t.Context(), t, f, f.countsReads)
	})
}

// The same where the API server lists by RangeStream, which it is to do by itself
// as soon as a store answers it.
func TestTheContractByRangeStream(t *testing.T) {
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.EtcdRangeStream, true)
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.ListFromCacheSnapshot, true)
	for _, rule := range []struct {
		name string
		run  func(context.Context, *testing.T, *fixture)
	}{
		{"list", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestList(ctx, t, f, f.compact, false, f.lists)
			if f.kv.GetStreamReadsAndReset() == 0 {
				t.Error("nothing was listed by RangeStream")
			}
		}},
		{"consistent list", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestConsistentList(ctx, t, f, f.raiseRevision, false, true, false)
		}},
		{"first events", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunWatchSemantics(ctx, t, f) }},
		{"first events, more", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunWatchSemanticInitialEventsExtended(ctx, t, f)
		}},
		{"list of one by watch", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunWatchListMatchSingle(ctx, t, f) }},
	} {
		t.Run(rule.name, simple(rule.run))
	}
}

// The same for watches.
func TestTheContractOfWatches(t *testing.T) {
	for _, rule := range []struct {
		name string
		run  func(context.Context, *testing.T, *fixture)
	}{
		{"watch", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestWatch(ctx, t, f) }},
		{"of all namespaces", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestClusterScopedWatch(ctx, t, f) }},
		{"of a namespace", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestNamespaceScopedWatch(ctx, t, f) }},
		{"deletion", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestDeleteTriggerWatch(ctx, t, f) }},
		{"from zero", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestWatchFromZero(ctx, t, f, f.compact)
		}},
		{"from a version", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestWatchFromNonZero(ctx, t, f) }},
		{"late delivery", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestDelayedWatchDelivery(ctx, t, f) }},
		{"error", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestWatchError(ctx, t, f) }},
		{"cancelled", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestWatchContextCancel(ctx, t, f) }},
		{"timeout", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunTestWatcherTimeout(ctx, t, f) }},
		{"version of a deletion", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestWatchDeleteEventObjectHaveLatestRV(ctx, t, f)
		}},
		{"signal of its beginning", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestWatchInitializationSignal(ctx, t, f)
		}},
		{"progress", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunOptionalTestProgressNotify(ctx, t, f, f.raiseRevision)
		}},
		{"bookmarks", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunTestWatchDispatchBookmarkEvents(ctx, t, f, false)
		}},
		{"first events as of old", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunSendInitialEventsBackwardCompatibility(ctx, t, f)
		}},
		{"first events", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunWatchSemantics(ctx, t, f) }},
		{"first events, more", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunWatchSemanticInitialEventsExtended(ctx, t, f)
		}},
		{"list of one by watch", func(ctx context.Context, t *testing.T, f *fixture) { contract.RunWatchListMatchSingle(ctx, t, f) }},
		{"error ends it", func(ctx context.Context, t *testing.T, f *fixture) {
			contract.RunWatchErrorIsBlockingFurtherEvents(ctx, t, f)
		}},
	} {
		t.Run(rule.name, simple(rule.run))
	}
}
