package placement

import (
	"slices"
	"strings"
)

// Plugin is a rule that refuses or rates nodes.
type Plugin uint8

// The plugins, in the order in which filters are asked.
const (
	NodeReady Plugin = iota
	NodeUnschedulable
	TaintToleration
	NodeAffinity
	NodeResourcesFit
	NodePorts
	PodTopologySpread
	InterPodAffinity
	BalancedAllocation
	OwnerSpread
	ImageLocality
	plugins // How many there are.
)

var pluginNames = [plugins]string{
	"NodeReady", "NodeUnschedulable", "TaintToleration", "NodeAffinity", "NodeResourcesFit", "NodePorts", "PodTopologySpread",
	"InterPodAffinity", "NodeResourcesBalancedAllocation", "OwnerSpread", "ImageLocality",
}

func (p Plugin) String() string { return pluginNames[p] }

// Set is some of the plugins.
type Set uint16

// Plugins is the set of those given.
func Plugins(of ...Plugin) Set {
	var s Set
	for _, p := range of {
		s |= 1 << p
	}
	return s
}

// Any is the set of all plugins.
const Any Set = 1<<plugins - 1

// Has reports whether a plugin is in the set.
func (s Set) Has(p Plugin) bool { return s&(1<<p) != 0 }

func (s Set) String() string {
	var names []string
	for p := range plugins {
		if s.Has(p) {
			names = append(names, p.String())
		}
	}
	if s == Any {
		return "anything"
	}
	return strings.Join(names, ",")
}

// Of one node alone: what these refuse changes only with that node and its pods. The
// others count the pods of a whole domain.
var ofOneNode = Plugins(NodeReady, NodeUnschedulable, TaintToleration, NodeAffinity, NodeResourcesFit, NodePorts)

// Local reports whether all plugins of the set look at nothing but one node.
func (s Set) Local() bool { return s&^ofOneNode == 0 }

// Profile is how much each score counts.
type Profile struct {
	Name    string
	weights [plugins]int64
	binpack bool // Prefer full nodes to empty ones.
}

// The profiles.
var (
	// Spread fills all nodes evenly and keeps the copies of a set apart.
	Spread = Profile{Name: "spread", weights: [plugins]int64{
		NodeResourcesFit: 1, BalancedAllocation: 1, TaintToleration: 3, NodeAffinity: 2, PodTopologySpread: 2, InterPodAffinity: 2, OwnerSpread: 2, ImageLocality: 1,
	}}
	// Binpack fills a node before it takes the next, so that whole nodes stay free.
	Binpack = Profile{Name: "binpack", binpack: true, weights: [plugins]int64{
		NodeResourcesFit: 5, BalancedAllocation: 1, TaintToleration: 3, NodeAffinity: 2, PodTopologySpread: 2, InterPodAffinity: 2, ImageLocality: 1,
	}}
)

// Profiles are all of them.
var Profiles = []Profile{Spread, Binpack}

// ProfileNamed finds a profile.
func ProfileNamed(name string) (Profile, bool) {
	i := slices.IndexFunc(Profiles, func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return Profile{}, false
	}
	return Profiles[i], true
}
