package daemon

import (
	"errors"
	"log/slog"
	"os"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// needed is what a reload, a check or the end of a node may need, where the node
// was started with it.
var needed = sys.CapabilitySet(
	sys.CapNetBindService,        // a reload listens on a port below 1024
	sys.CapSysPtrace,             // a port in use names its holder, whoever that is
	sys.CapSetUID, sys.CapSetGID, // a check runs as another user
	sys.CapKill,                 // and is ended where it takes too long
	sys.CapChown, sys.CapFowner, // the group and the mode of the admin socket; removing it from a sticky directory
	sys.CapDACOverride,   // sockets and files in other users' directories, backends on other users' sockets
	sys.CapDACReadSearch, // the file, and the programs of checks
)

// DropCapabilities gives up what this process holds and no reload or check can
// need, on every thread, for good. It is for a program that runs a daemon and
// nothing else, once everything is open: it concerns the whole process. What is
// kept is logged; nothing is where there is nothing to drop.
//
// What programs are to inherit (the ambient set) stays, and so does the bounding
// set: a check that runs a program as root, such as ping, needs what root has. With
// no_new_privs a program has no more than the node, so there a node of root's
// drops nothing, and says so.
//
// Where it fails, that is logged and everything stays: the daemon runs with more
// than it needs, as it has until then.
func DropCapabilities(log *slog.Logger) {
	held, ambient, err := sys.HeldCapabilities()
	if err != nil {
		log.Warn("capabilities stay: they could not be read", "err", err)
		return
	}
	keep := held & (needed | ambient)
	if keep == held {
		return
	}
	if os.Geteuid() == 0 && sys.NoNewPrivileges() {
		log.Info("capabilities stay: with no_new_privs, checks have only what the node has", "kept", held.String())
		return
	}
	switch err := sys.KeepCapabilities(keep); {
	case errors.Is(err, syscall.ENOTSUP):
		log.Info("capabilities stay: this program was built with cgo, which does not reach all threads", "kept", held.String())
	case err != nil:
		log.Warn("capabilities stay: they could not be dropped", "err", err, "kept", held.String())
	default:
		log.Info("capabilities dropped", "kept", keep.String())
	}
}
