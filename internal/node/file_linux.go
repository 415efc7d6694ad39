package node

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/config"
)

// lookInterval is how often the file is looked at, at most.
const lookInterval = 2 * time.Second

// A fileOnDisk remembers what was last seen of a file, so that it is read again
// only where it may have changed.
type fileOnDisk struct {
	looked time.Time
	info   os.FileInfo
	digest string // "" for a file that cannot be read
	fixed  bool   // it is none that can be read twice
}

// look looks at the file, unless it was looked at a moment ago.
func (f *fileOnDisk) look(path string, now time.Time) {
	if !f.looked.IsZero() && now.Sub(f.looked) < lookInterval {
		return
	}
	f.looked = now
	info, err := os.Stat(path)
	if err != nil {
		f.info, f.digest, f.fixed = nil, "", false
		return
	}
	if f.fixed = !info.Mode().IsRegular(); f.fixed {
		return
	}
	// A file of the very moment may still change without another time.
	old := now.Sub(info.ModTime()) > lookInterval
	if f.info != nil && old && os.SameFile(f.info, info) && f.info.ModTime().Equal(info.ModTime()) && f.info.Size() == info.Size() {
		return
	}
	f.info, f.digest = info, digest(path)
}

// differs reports whether the file is another than the one with this digest.
func (f *fileOnDisk) differs(digest string) bool { return !f.fixed && f.digest != digest }

// digest is as config.Config.Digest; "" where the file cannot be read, or is
// larger than a configuration may be. Status waits for it: it is never long.
func digest(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(time.Second)) // some of /proc call themselves regular, and are not
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(f, config.MaxFileSize+1)); err != nil || n > config.MaxFileSize {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}
