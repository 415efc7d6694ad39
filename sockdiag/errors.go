package sockdiag

import "errors"

// What can be the matter, for errors.Is. The errors that are returned say what
// was tried and on what, and hold the kernel's errno, too.
var (
	// ErrGone: there is no such socket, or not any more.
	ErrGone = errors.New("no such socket")
	// ErrNotPermitted: CAP_NET_ADMIN is missing.
	ErrNotPermitted = errors.New("CAP_NET_ADMIN is missing in the user namespace that owns the network namespace")
	// ErrUnsupported: this kernel cannot.
	ErrUnsupported = errors.New("this kernel cannot: it was built without CONFIG_INET_DIAG_DESTROY, or without CONFIG_INET_DIAG")
	// ErrInterrupted: a listing is not whole. What it told is true; something may
	// be missing.
	ErrInterrupted = errors.New("the listing is not whole, because the sockets changed too much meanwhile")
	// ErrOverflow: a Watch has lost events. Whoever keeps a picture of the sockets
	// must list them anew.
	ErrOverflow = errors.New("events were lost, because they were not read in time: list the sockets anew")
	// ErrBusy: a List of this Conn is still being ranged over.
	ErrBusy = errors.New("another listing of this Conn is still under way")
)

// refusal is what the kernel has answered, and what it means.
type refusal struct{ meaning, errno error }

func (r refusal) Error() string   { return r.meaning.Error() + " (" + r.errno.Error() + ")" }
func (r refusal) Unwrap() []error { return []error{r.meaning, r.errno} }
