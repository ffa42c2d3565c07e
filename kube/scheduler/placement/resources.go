package placement

import (
	"cmp"
	"slices"

	"github.com/holdfast-db/holdfast/kube/api"
)

// resources is what a pod asks for, a node offers, or a node's pods ask for together.
type resources struct {
	milliCPU, memory, storage, pods int64
	extended                        []amount // Sorted by name.
}

// amount is some of an extended resource.
type amount struct {
	name     string
	n        int64
	shortage string // The reason for which a node refuses.
}

// amountMax keeps sums from overflowing: more than any node has, and thousands of it
// still fit an int64.
const amountMax = 1 << 50

func resourcesFrom(r api.Resources) resources {
	out := resources{
		milliCPU: min(r.MilliCPU, amountMax), memory: min(r.Memory, amountMax), storage: min(r.EphemeralStorage, amountMax), pods: min(r.Pods, amountMax),
	}
	for name, n := range r.Extended {
		out.extended = append(out.extended, amount{name: name, n: min(n, amountMax), shortage: "Insufficient " + name})
	}
	slices.SortFunc(out.extended, func(a, b amount) int { return cmp.Compare(a.name, b.name) })
	return out
}

func (r *resources) add(other *resources, sign int64) {
	r.milliCPU += sign * other.milliCPU
	r.memory += sign * other.memory
	r.storage += sign * other.storage
	r.pods += sign * other.pods
	for _, a := range other.extended {
		i, found := slices.BinarySearchFunc(r.extended, a.name, byName)
		if !found {
			r.extended = slices.Insert(r.extended, i, amount{name: a.name})
		}
		r.extended[i].n += sign * a.n
	}
}

func (r *resources) of(name string) int64 {
	if i, found := slices.BinarySearchFunc(r.extended, name, byName); found {
		return r.extended[i].n
	}
	return 0
}

func byName(a amount, name string) int { return cmp.Compare(a.name, name) }

// moreThan reports whether some resource is more than in other.
func (r *resources) moreThan(other *resources) bool {
	return r.milliCPU > other.milliCPU || r.memory > other.memory || r.storage > other.storage || r.pods > other.pods ||
		slices.ContainsFunc(r.extended, func(a amount) bool { return a.n > other.of(a.name) })
}
