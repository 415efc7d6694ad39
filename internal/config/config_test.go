package config

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGood parses what is right, with and without Windows line ends.
func TestGood(t *testing.T) {
	for _, f := range append(files(t, "testdata/good/*.yaml"), "../../packaging/holdfast.yaml") {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Parse(f, text); err != nil {
				t.Fatal(err)
			}
		})
	}
}
