//go:build unix

package admin

import (
	"io/fs"
	"os/user"
	"strconv"
	"syscall"
)

// ownerOf names the owner and the group of a file.
func ownerOf(fi fs.FileInfo) (owner, group string, ok bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", "", false
	}
	owner, group = strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return owner, group, true
}
