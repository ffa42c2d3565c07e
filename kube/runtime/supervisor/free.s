//go:build linux

// A package with a file in assembler may declare functions whose bodies are elsewhere: free.go.
