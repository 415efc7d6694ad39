//go:build linux

package api

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// A peer is who is at the other end of a connection.
type peer struct {
	sys.Peer
	err error // it could not be told
}

type peerKey struct{}

// withPeer puts who made a connection into the context of its requests.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if l, ok := c.(*limitedConn); ok {
		return context.WithValue(ctx, peerKey{}, l.peer)
	}
	return ctx
}

func peerOf(ctx context.Context) peer {
	if p, ok := ctx.Value(peerKey{}).(peer); ok {
		return p
	}
	return peer{err: errNoUnixSocket}
}

var errNoUnixSocket = fmt.Errorf("it did not come by a unix socket")

func identify(c net.Conn) peer {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return peer{err: errNoUnixSocket}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peer{err: err}
	}
	p, err := sys.UnixPeer(raw)
	return peer{Peer: p, err: err}
}

// String says who: "uid 1000 (pid 4711, user alice)".
func (p peer) String() string {
	if p.err != nil {
		return "somebody unknown"
	}
	s := fmt.Sprintf("uid %d (pid %d", p.UID, p.PID)
	if u, err := user.LookupId(strconv.FormatUint(uint64(p.UID), 10)); err == nil {
		s += ", user " + u.Username
	}
	return s + ")"
}

// SetGroup makes another group the one whose members may change things, from the
// next request on. It fails if there is no such group.
func (s *Server) SetGroup(group string) error {
	r, err := newRights(group)
	if err != nil {
		return err
	}
	s.rights.Store(&r)
	return nil
}

// rights say who may change things.
type rights struct {
	nobody bool // may, whoever it is
	self   uint32
	group  string
	gid    uint32 // of group, unless that is ""
}

func newRights(group string) (rights, error) {
	r := rights{self: uint32(os.Geteuid()), group: group}
	if group == "" {
		return r, nil
	}
	gid, err := lookupGroup(group)
	r.gid = gid
	return r, err
}

func lookupGroup(group string) (uint32, error) {
	id := group
	if g, err := user.LookupGroup(group); err == nil {
		id = g.Gid
	}
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("admin.group: there is no group %q: make it (groupadd --system %s), or leave admin.group out", group, group)
	}
	return uint32(n), nil
}

func (r rights) mayChange(p peer) bool {
	return !r.nobody && p.err == nil && (p.UID == 0 || p.UID == r.self ||
		r.group != "" && (p.GID == r.gid || slices.Contains(p.Groups, r.gid)))
}

// refusal says to somebody who may only read what would be needed.
func (r rights) refusal(p peer) *admin.Error {
	if p.err != nil {
		return &admin.Error{
			Code: admin.CodeForbidden, Text: "who asks could not be told, and so may only read: " + p.err.Error(),
			Remedy: "ask by the node's socket",
		}
	}
	may := []string{"root"}
	if r.self != 0 {
		may = append(may, fmt.Sprintf("uid %d, which the node runs as", r.self))
	}
	remedy := "run it as root (sudo), or name a group in admin.group whose members may"
	if r.group != "" {
		may = append(may, "the members of group "+r.group)
		remedy = "run it as root (sudo), or join the group and log in again"
	}
	return &admin.Error{
		Code:   admin.CodeForbidden,
		Text:   fmt.Sprintf("%s may read, and not change anything; that is for %s", p, strings.Join(may, ", and ")),
		Remedy: remedy,
	}
}
