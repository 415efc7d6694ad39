package pair

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// unsentLimit is what may lie before a beat in the kernel, without what is on
// its way: two TLS records.
const unsentLimit = 32 << 10

// tune makes the kernel give up a peer that is silent for as long as we do, and
// keep what is not sent yet here, where a beat can pass it.
func tune(c *net.TCPConn, silence time.Duration) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if e := sys.SetUserTimeout(int(fd), silence); e != 0 {
			failed = fmt.Errorf("cannot bound the silence of the link: %w", os.NewSyscallError("setsockopt", e))
		} else if e := sys.SetUnsentLimit(int(fd), unsentLimit); e != 0 {
			failed = fmt.Errorf("cannot bound what the link holds unsent: %w", os.NewSyscallError("setsockopt", e))
		}
	})
	return errors.Join(err, failed)
}
