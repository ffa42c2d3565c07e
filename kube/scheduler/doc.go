// Package scheduler gives each pod a node.
package scheduler
