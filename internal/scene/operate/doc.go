//go:build linux

// Package operate holds the scenes of a running node: what operators do to it, and
// what more clients than it has room for do. See package scene for what a scene
// is.
package operate

import "github.com/holdfast-net/holdfast/internal/scene"

// All lists the scenes in the order in which a reader should meet them.
func All() []scene.Scene { return []scene.Scene{Reload(), Full()} }
