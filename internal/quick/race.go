//go:build race

package quick

const underRace = true
