package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestCheckedInCodeIsWhatTheSourcesSay(t *testing.T) {
	const root = "../.."
	want, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range want {
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Errorf("%v; run make proto", err)
		} else if !bytes.Equal(got, content) {
			t.Errorf("%s differs from its source; run make proto", path)
		}
	}
	have, err := generated(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range have {
		if want[path] == nil {
			t.Errorf("%s has no source; run make proto", path)
		}
	}
}
