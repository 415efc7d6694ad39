//go:build linux

// Package own holds the scenes of two nodes that have addresses between them:
// who owns one, and what becomes of it when a node dies, freezes, is cut off or
// gives it away. The judge is the wire: every frame on the switch, with the cable
// it came from. See package scene for what a scene is.
package own

import "github.com/holdfast-net/holdfast/internal/scene"

// All lists the scenes in the order in which a reader should meet them.
func All() []scene.Scene {
	return []scene.Scene{AddressMoves(), NodeFreezes(), Split(), AdvertGaps(), ForgedAdverts(), VRRPPeer()}
}
