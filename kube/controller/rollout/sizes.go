package rollout

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
)

// all are the sets, the present one last.
func (s *state) all() []*appsv1.ReplicaSet {
	if s.current == nil {
		return s.old
	}
	return append(slices.Clone(s.old), s.current)
}

// size is what a set is told to have, after what is planned.
func (s *state) size(set *appsv1.ReplicaSet) int32 {
	for _, z := range s.plan.Sizes {
		if z.Set == set {
			return z.Replicas
		}
	}
	return wanted(set.Spec.Replicas)
}

// settled reports whether a set's controller knows its size: from then on it has no
// more pods than the larger of that and of its status.
func settled(set *appsv1.ReplicaSet) bool { return set.Status.ObservedGeneration >= set.Generation }

// total is how many pods there may be at most, now or soon, unless a set is not
// settled: then nobody knows.
func (s *state) total() (n int32, known bool) {
	known = true
	for _, set := range s.all() {
		n += max(wanted(set.Spec.Replicas), s.size(set), set.Status.Replicas)
		known = known && settled(set)
	}
	return n, known
}

// leaving are pods that have been told to stop and may still run.
func (s *state) leaving() (n int32) {
	for _, set := range s.all() {
		n += wantedOr0(set.Status.TerminatingReplicas)
	}
	return n
}

// available is how many pods of a set are available and will stay.
func (s *state) available(set *appsv1.ReplicaSet) int32 {
	return min(set.Status.AvailableReplicas, wanted(set.Spec.Replicas), s.size(set))
}

func (s *state) resize(set *appsv1.ReplicaSet, n int32) {
	if n == s.size(set) {
		return
	}
	word := "up"
	if n < s.size(set) {
		word = "down"
	}
	s.plan.note("ScalingReplicaSet", "scaled %s %s from %d to %d", word, set.Name, s.size(set), n)
	if i := slices.IndexFunc(s.plan.Sizes, func(z Size) bool { return z.Set == set }); i >= 0 {
		s.plan.Sizes[i].Replicas = n
		return
	}
	s.plan.Sizes = append(s.plan.Sizes, Size{set, n})
}

// Sized is a set as it is to be written with a size of the plan.
func Sized(d *appsv1.Deployment, z Size) (*appsv1.ReplicaSet, error) {
	s := &state{Facts: Facts{Deployment: d}, desired: wanted(d.Spec.Replicas)}
	if !recreates(d) {
		var err error
		if s.surge, _, err = Bounds(d); err != nil {
			return nil, err
		}
	}
	set := z.Set.DeepCopy()
	set.Spec.Replicas = &z.Replicas
	s.sized(set)
	return set, nil
}

// roll grows the present set as far as the surge permits, and otherwise takes from
// the old ones what is not needed any more.
func (s *state) roll() {
	if s.current == nil {
		return // It is created first.
	}
	if n := s.size(s.current); n > s.desired {
		s.resize(s.current, s.desired)
	} else if total, known := s.total(); n < s.desired && known && total < s.desired+s.surge {
		s.resize(s.current, min(s.desired, n+s.desired+s.surge-total))
	}
	s.shrink()
}

// shrink takes from the old sets: first pods that are not available, then such that
// are, as long as enough are left.
func (s *state) shrink() {
	sum, available := int32(0), int32(0)
	for _, set := range s.all() {
		sum += min(s.size(set), wanted(set.Spec.Replicas)) // What grows now is not there yet.
		available += s.available(set)
	}
	waiting := min(wanted(s.current.Spec.Replicas), s.size(s.current)) - s.available(s.current)
	room := sum - s.minimum - waiting
	for _, set := range s.old {
		broken := s.size(set) - s.available(set)
		if n := min(room, broken); n > 0 {
			s.resize(set, s.size(set)-n)
			room -= n
		}
	}
	room = min(room, available-s.minimum)
	for _, set := range s.old {
		if n := min(room, s.size(set)); n > 0 {
			s.resize(set, s.size(set)-n)
			room -= n
		}
	}
}

// replace stops all old pods before it starts the first new one.
func (s *state) replace() {
	for _, set := range s.old {
		s.resize(set, 0)
	}
	if s.current == nil {
		return
	}
	others, known := int32(0), true
	for _, set := range s.old {
		others += max(wanted(set.Spec.Replicas), set.Status.Replicas) + wantedOr0(set.Status.TerminatingReplicas)
		known = known && settled(set)
	}
	if n := s.size(s.current); n > s.desired || n < s.desired && known && others == 0 {
		s.resize(s.current, s.desired)
	}
}

// scaling reports whether the Deployment's size changed since its sets were scaled.
func (s *state) scaling() bool {
	for _, set := range s.all() {
		n, err := strconv.Atoi(set.Annotations[DesiredReplicas])
		if wanted(set.Spec.Replicas) > 0 && err == nil && int32(n) != s.desired {
			return true
		}
	}
	return false
}

// revive follows the size of a paused Deployment that has come down to 0, and of whose sets
// none tells for what size it was scaled: what ran last runs again.
func (s *state) revive() {
	var last *appsv1.ReplicaSet
	for _, set := range s.all() {
		if wanted(set.Spec.Replicas) > 0 {
			return
		}
		if last == nil || RevisionOf(set) >= RevisionOf(last) {
			last = set
		}
	}
	total, known := s.total()
	if last == nil || s.recreate && (total > 0 || !known || s.leaving() > 0) {
		return
	}
	if s.desired > 0 {
		s.scaleOne(last)
	}
}

// scale spreads a change of size over the sets that have pods, each by its share, so
// that a new revision that does not work does not get all that is added.
func (s *state) scale() {
	var active []*appsv1.ReplicaSet
	sum := int32(0)
	for _, set := range s.all() {
		if wanted(set.Spec.Replicas) > 0 {
			active = append(active, set)
			sum += wanted(set.Spec.Replicas)
		}
	}
	if len(active) == 1 {
		s.scaleOne(active[0])
		return
	}
	allowed := int32(0)
	if s.desired > 0 {
		allowed = s.desired + s.surge
	}
	if total, known := s.total(); allowed > sum && (!known || total > sum) {
		return // What was asked before is not done yet.
	}
	slices.SortStableFunc(active, func(a, b *appsv1.ReplicaSet) int {
		return cmp.Compare(wanted(b.Spec.Replicas), wanted(a.Spec.Replicas))
	})
	if allowed >= sum {
		s.spread(active, allowed, sum)
	} else {
		s.takeBack(active, allowed, sum)
	}
}

// spread adds; what rounding leaves goes to the largest set.
func (s *state) spread(active []*appsv1.ReplicaSet, allowed, sum int32) {
	left := allowed - sum
	for _, set := range active {
		change := min(share(wanted(set.Spec.Replicas), allowed, sum), left)
		left -= change
		s.resizeFor(set, wanted(set.Spec.Replicas)+change)
	}
	s.resizeFor(active[0], s.size(active[0])+left)
}

// takeBack removes, but never an available pod that is needed: first each set's
// share, then whatever can go.
func (s *state) takeBack(active []*appsv1.ReplicaSet, allowed, sum int32) {
	left, spare := sum-allowed, -s.minimum
	for _, set := range active {
		spare += s.available(set)
	}
	take := func(set *appsv1.ReplicaSet, n int32) {
		available := s.available(set)
		broken := s.size(set) - available
		n = min(n, left, s.size(set), broken+max(0, spare))
		left -= n
		spare -= max(0, n-broken)
		s.resizeFor(set, s.size(set)-n)
	}
	for _, set := range active {
		take(set, -share(wanted(set.Spec.Replicas), allowed, sum))
	}
	for _, set := range active {
		take(set, left)
	}
}

// share is what a set's n pods of sum become, less n, when there shall be allowed.
func share(n, allowed, sum int32) int32 {
	if sum == 0 {
		return 0
	}
	return int32(math.Round(float64(n)*float64(allowed)/float64(sum))) - n
}

// scaleOne follows the size with the only set that is to have pods. Others may still
// have some.
func (s *state) scaleOne(set *appsv1.ReplicaSet) {
	n := wanted(set.Spec.Replicas)
	if s.desired > n {
		total, known := s.total()
		if !known {
			return
		}
		s.resizeFor(set, max(n, min(s.desired, n+s.desired+s.surge-total)))
		return
	}
	s.resizeFor(set, s.desired)
}

// resizeFor also tells in the set that it follows the present size, even if it keeps
// its own.
func (s *state) resizeFor(set *appsv1.ReplicaSet, n int32) {
	s.resize(set, n)
	if !slices.ContainsFunc(s.plan.Sizes, func(z Size) bool { return z.Set == set }) {
		s.plan.Sizes = append(s.plan.Sizes, Size{set, n})
	}
}
