package main

import (
	"slices"
	"strconv"
	"strings"
)

// feature is a gate of --feature-gates.
type feature struct {
	name    string
	initial bool
	state   state
	why     string
}

// Names that stand for all features of a stage.
const (
	allAlpha = "AllAlpha"
	allBeta  = "AllBeta"
)

func features() []feature {
	return []feature{
		{"CompactHashCheck", false, done, "compares the members' states after compactions"},
		{"FastLeaseKeepAlive", true, accepted, "renewing a lease never waits for what is being applied"},
		{"InitialCorruptCheck", false, done, "compares this member's state with others before it serves"},
		{"LeaseCheckpoint", false, accepted, "a new leader gives each lease its full time: keys live longer, never shorter"},
		{"LeaseCheckpointPersist", false, accepted, "as for LeaseCheckpoint"},
		{"PriorityRequest", false, accepted, "leases that end are entries like any other, and overload refuses new requests before it delays these"},
		{"SetMemberLocalAddr", false, accepted, "the system chooses the address from which members are dialed"},
		{"StopGRPCServiceOnDefrag", false, done, "says NOT_SERVING on the health service during defragmentation"},
		{"TxnModeWriteWithSharedBuffer", true, accepted, "transactions read where they write"},
	}
}

// gateOf is the feature that a flag of etcd up to 3.6 has become, as kubeadm gave it:
// --experimental-initial-corrupt-check is InitialCorruptCheck.
func gateOf(flag string) string {
	name, experimental := strings.CutPrefix(flag, "experimental-")
	name = strings.TrimSuffix(strings.TrimPrefix(name, "enable-"), "-enabled")
	name = strings.ReplaceAll(name, "-", "")
	for _, f := range features() {
		if experimental && strings.EqualFold(f.name, name) {
			return f.name
		}
	}
	return ""
}

// judgeFeatures reads NAME=true,NAME=false,….
func (o *options) judgeFeatures() error {
	asked := map[string]bool{}
	for _, part := range splitList(o.featureGates) {
		name, text, ok := strings.Cut(part, "=")
		on, err := strconv.ParseBool(strings.TrimSpace(text))
		if !ok || err != nil {
			return wrongSetting("--feature-gates: %q is not NAME=true or NAME=false", part)
		}
		asked[strings.TrimSpace(name)] = on
	}
	if asked["LeaseCheckpointPersist"] && !asked["LeaseCheckpoint"] {
		return wrongSetting("--feature-gates: LeaseCheckpointPersist needs LeaseCheckpoint: enable both or none")
	}
	o.cfg.AwayOnDefragment = asked["StopGRPCServiceOnDefrag"]
	known := features()
	for name, on := range asked { //tidy:ordered one of several wrong names is told
		i := slices.IndexFunc(known, func(f feature) bool { return f.name == name })
		switch {
		case name == allAlpha || name == allBeta:
			o.warn("feature gate has no effect: name the features one by one", "feature", name)
		case i < 0:
			return wrongSetting("--feature-gates: there is no feature %q%s", name, meant(name, known))
		case known[i].state == accepted && on != known[i].initial:
			o.warn("feature gate has no effect", "feature", name, "why", known[i].why)
		}
	}
	o.cfg.CompactHashCheck, o.cfg.InitialCorruptCheck = asked["CompactHashCheck"], asked["InitialCorruptCheck"]
	return nil
}

func meant(wrong string, known []feature) string {
	var names []string
	for _, f := range known {
		names = append(names, f.name)
	}
	if near := nearest(wrong, names); near != "" {
		return ": did you mean " + near + "?"
	}
	return ": there are " + strings.Join(names, ", ")
}
