package vip

import (
	"encoding/json"
	"fmt"
)

// handed is what one Owner leaves the next of a group.
type handed struct {
	Epoch uint64 `json:"epoch"`
	Until int64  `json:"until"`          // of the lease, BootTime; 0: none
	Peer  []byte `json:"peer,omitempty"` // the peer's last beat
}

type handedFile struct {
	Version int               `json:"version"`
	Groups  map[string]handed `json:"groups"`
}

const handedVersion = 1

func writeHanded(groups map[string]handed) []byte {
	b, err := json.Marshal(handedFile{handedVersion, groups})
	if err != nil {
		panic(err) // numbers and strings
	}
	return b
}

// readHanded reads Options.Resume; empty is nothing.
func readHanded(b []byte) (map[string]handed, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var f handedFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("vip: Options.Resume: %w; it must be what Hand has returned", err)
	}
	if f.Version != handedVersion {
		return nil, fmt.Errorf("vip: Options.Resume has version %d, this program reads %d; start without it", f.Version, handedVersion)
	}
	return f.Groups, nil
}
